// Diffs: comments on lines, files that expand in place, and keys that go from
// file to file and from thread to thread. Without it everything can be read,
// answered and resolved.

export function start(root: HTMLElement): void {
  const template = root.querySelector<HTMLTemplateElement>("template.note-form");
  if (template) comments(root, template);
  expands(root);
  keys(root);
  openTarget(root);
  window.addEventListener("hashchange", () => openTarget(root));
}

// openTarget opens what hides the part that the address names.
function openTarget(root: HTMLElement): void {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id ? document.getElementById(id) : null;
  if (!target || !root.contains(target)) return;
  for (let at = target.parentElement; at; at = at.parentElement) if (at instanceof HTMLDetailsElement) at.open = true;
  target.scrollIntoView({ block: "center" });
}

// comments puts one button beside the line that is pointed at or focused.
function comments(root: HTMLElement, template: HTMLTemplateElement): void {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "note-add";
  button.textContent = "+";
  const numberOf = (at: EventTarget | null): HTMLAnchorElement | null => {
    const cell = (at as HTMLElement | null)?.closest<HTMLTableCellElement>("td");
    const row = cell?.parentElement;
    if (!cell || !row || row.classList.contains("d-notes")) return null;
    const own = cell.querySelector<HTMLAnchorElement>(":scope > a[data-l]");
    if (own) return own;
    for (let c = cell.previousElementSibling; c; c = c.previousElementSibling) {
      const number = c.querySelector<HTMLAnchorElement>(":scope > a[data-l]");
      if (number) return number;
      if (root.classList.contains("parallel")) break;
    }
    return null;
  };
  const show = (event: Event): void => {
    if (event.target === button) return;
    const number = numberOf(event.target);
    if (!number || number.nextElementSibling === button) return;
    button.setAttribute("aria-label", "Comment on line " + (number.textContent ?? ""));
    number.after(button);
  };
  root.addEventListener("mouseover", show);
  root.addEventListener("focusin", show);
  button.addEventListener("click", () => {
    const number = button.previousElementSibling as HTMLAnchorElement | null;
    if (number) write(root, template, number);
  });
  root.addEventListener("keydown", (event) => {
    const number = (event.target as HTMLElement).closest<HTMLAnchorElement>("a[data-l]");
    if (number && event.key === "c" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      write(root, template, number);
    }
  });
}

// write opens the form below a line, or goes to the one that is open there.
function write(root: HTMLElement, template: HTMLTemplateElement, number: HTMLAnchorElement): void {
  const row = number.closest("tr")!;
  const file = number.closest<HTMLElement>(".diff")!;
  const [oldLine, newLine] = number.dataset.l!.split(",");
  const open = row.nextElementSibling;
  if (open?.classList.contains("d-form")) {
    open.querySelector("textarea")!.focus();
    return;
  }
  const holder = document.createElement("tr");
  holder.className = "d-notes d-form";
  const cell = holder.insertCell();
  cell.colSpan = root.classList.contains("parallel") ? 4 : 3;
  const box = document.createElement("div");
  box.className = "d-thread";
  box.append(template.content.cloneNode(true));
  cell.append(box);
  const form = box.querySelector("form")!;
  const set = (name: string, value: string): void => {
    (form.elements.namedItem(name) as HTMLInputElement).value = value;
  };
  set("old_path", file.dataset.old ?? "");
  set("new_path", file.dataset.new ?? "");
  set("old_line", oldLine ?? "0");
  set("new_line", newLine ?? "0");
  // A suggestion begins as the line is.
  const suggest = form.querySelector<HTMLElement>("[data-suggest]")!;
  if (newLine === "0") suggest.remove();
  suggest.addEventListener("click", () => {
    const text = form.querySelector("textarea")!;
    const cells = [...row.querySelectorAll<HTMLElement>("td.s")];
    let code = cells[cells.length - 1]?.textContent ?? "";
    if (!root.classList.contains("parallel")) code = code.slice(1);
    const before = text.value === "" || text.value.endsWith("\n") ? text.value : text.value + "\n";
    text.value = before + "```suggestion:-0+0\n" + code + "\n```\n";
    text.focus();
    const at = before.length + "```suggestion:-0+0\n".length;
    text.setSelectionRange(at, at + code.length);
  });
  const close = (): void => {
    holder.remove();
    number.focus();
  };
  form.querySelector("[data-cancel]")!.addEventListener("click", close);
  holder.addEventListener("keydown", (event) => {
    const text = form.querySelector("textarea")!;
    if (event.key === "Escape" && (text.value.trim() === "" || confirm("Throw the comment away?"))) close();
  });
  row.after(holder);
  form.querySelector("textarea")!.focus();
}

// expands loads a file that was too long to be shown, in its place.
function expands(root: HTMLElement): void {
  root.addEventListener("click", (event) => {
    const link = (event.target as HTMLElement).closest<HTMLAnchorElement>("a[data-expand]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const file = link.closest<HTMLElement>(".diff")!;
    link.setAttribute("aria-busy", "true");
    void fetch(link.href.split("#")[0]!, { headers: { "X-Fragment": "1" } })
      .then(async (response) => {
        if (!response.ok) throw new Error(String(response.status));
        const holder = document.createElement("template");
        holder.innerHTML = await response.text();
        const next = holder.content.getElementById(file.id);
        if (!next) throw new Error("no file");
        file.replaceWith(next);
        next.querySelector<HTMLElement>("summary")?.focus();
      })
      .catch(() => {
        location.href = link.href;
      });
  });
}

function typing(at: EventTarget | null): boolean {
  return at instanceof HTMLElement && (at.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(at.tagName));
}

// keys goes from file to file with ] and [, from thread to thread with n and p.
function keys(root: HTMLElement): void {
  document.addEventListener("keydown", (event) => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { "]": 1, j: 1, "[": -1, k: -1, n: 1, p: -1 }[event.key];
    if (!step) return;
    const threads = event.key === "n" || event.key === "p";
    const list = [...root.querySelectorAll<HTMLElement>(threads ? ".thread[data-resolvable]:not([data-resolved])" : ".diff > summary")].filter((e) => e.offsetParent !== null);
    const top = 80;
    const next = step > 0 ? list.find((e) => e.getBoundingClientRect().top > top + 4) : list.reverse().find((e) => e.getBoundingClientRect().top < top - 4);
    if (!next) return;
    event.preventDefault();
    if (threads) next.tabIndex = -1;
    next.focus({ preventScroll: true });
    window.scrollBy({ top: next.getBoundingClientRect().top - top });
  });
}
