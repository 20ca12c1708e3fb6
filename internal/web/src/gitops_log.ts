// The log of a container, followed by server-sent events. A connection begins
// with the last lines again, so what is shown is replaced when it opens. The
// view stays at the end unless somebody has scrolled up.

const kept = 20_000; // lines; older ones are dropped
interface Line { time: string; text: string }

export function start(root: HTMLElement): void {
  const view = root.querySelector<HTMLElement>(".gitops-log")!;
  const state = root.querySelector<HTMLElement>(".gitops-log-state")!;
  const say = (text: string): void => void (state.textContent = text);
  let waiting: Line[] = [];
  let fresh = true; // the next lines replace what is shown
  let drawing = false;
  view.scrollTop = view.scrollHeight;

  const draw = (): void => {
    drawing = false;
    const atEnd = view.scrollTop + view.clientHeight >= view.scrollHeight - 4;
    if (fresh) view.textContent = "";
    fresh = false;
    const rows = document.createDocumentFragment();
    for (const line of waiting.slice(-kept)) {
      const row = document.createElement("span");
      const time = document.createElement("span");
      time.className = "dim";
      time.title = new Date(line.time).toLocaleString();
      time.textContent = line.time.slice(11, 19);
      row.append(time, ` ${line.text}\n`);
      rows.append(row);
    }
    waiting = [];
    view.append(rows);
    while (view.childElementCount > kept) view.firstElementChild!.remove();
    if (atEnd) view.scrollTop = view.scrollHeight;
  };
  const events = new EventSource(root.dataset.stream!);
  events.addEventListener("open", () => {
    fresh = true;
    waiting = [];
    say("Following.");
  });
  events.addEventListener("line", (event) => {
    waiting.push(JSON.parse((event as MessageEvent<string>).data) as Line);
    if (waiting.length > 2 * kept) waiting = waiting.slice(-kept); // nobody looks
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(draw);
  });
  events.addEventListener("end", (event) => {
    events.close();
    const { why } = JSON.parse((event as MessageEvent<string>).data) as { why: string };
    say(why || "The container has ended.");
  });
  events.addEventListener("error", () => say(events.readyState === EventSource.CLOSED ? "The log cannot be followed any more. Reload the page." : "The connection was lost; trying again."));
  window.addEventListener("pagehide", () => events.close());
}
