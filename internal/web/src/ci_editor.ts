// The pipeline editor: line numbers, and the server's verdict while typing.
export function start(form: HTMLElement): void {
  const area = form.querySelector<HTMLTextAreaElement>("textarea")!;
  const gutter = form.querySelector<HTMLElement>(".edit-lines")!;
  let timer = 0;
  let turn = 0;

  const paint = (): void => {
    const marks = new Map<number, string>();
    form.querySelectorAll<HTMLElement>("#lint [data-line]").forEach((e) => marks.set(Number(e.dataset.line), e.dataset.kind ?? "bad"));
    const count = area.value.split("\n").length;
    const parts: Node[] = [];
    for (let n = 1; n <= count; n++) {
      const kind = marks.get(n);
      if (kind) {
        const mark = document.createElement("span");
        mark.className = kind;
        mark.textContent = String(n);
        parts.push(mark, document.createTextNode("\n"));
      } else parts.push(document.createTextNode(`${n}\n`));
    }
    gutter.replaceChildren(...parts);
    gutter.scrollTop = area.scrollTop;
  };

  const check = async (): Promise<void> => {
    const mine = ++turn;
    try {
      const body = new URLSearchParams(new FormData(form as HTMLFormElement) as unknown as Record<string, string>);
      const response = await fetch(form.dataset.lint!, { method: "POST", body, headers: { "X-Fragment": "1" } });
      if (!response.ok || mine !== turn) return;
      const holder = document.createElement("template");
      holder.innerHTML = await response.text();
      const next = holder.content.firstElementChild;
      if (!next || mine !== turn) return;
      form.querySelector("#lint")!.replaceWith(next);
      paint();
    } catch {
      // The network is away: the next change tries again.
    }
  };

  area.addEventListener("input", () => {
    paint();
    clearTimeout(timer);
    timer = window.setTimeout(() => void check(), 400);
  });
  area.addEventListener("scroll", () => (gutter.scrollTop = area.scrollTop));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && !event.shiftKey && area.selectionStart === area.selectionEnd) {
      event.preventDefault();
      area.setRangeText("  ", area.selectionStart, area.selectionEnd, "end");
      area.dispatchEvent(new Event("input"));
    }
  });
  form.addEventListener("click", (event) => {
    const item = (event.target as HTMLElement).closest<HTMLElement>("#lint [data-line]");
    const line = Number(item?.dataset.line ?? 0);
    if (!line || !(event.target as HTMLElement).closest("button")) return;
    const lines = area.value.split("\n");
    const from = lines.slice(0, line - 1).reduce((sum, l) => sum + l.length + 1, 0);
    area.focus();
    area.setSelectionRange(from, from + (lines[line - 1]?.length ?? 0));
    area.scrollTop = Math.max(0, (line - 6) * 19);
  });
  paint();
}
