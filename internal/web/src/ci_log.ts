// The log of a job. It is fetched in pieces and kept as bytes with an index of
// its lines; only the lines in view are decoded and drawn, so that 50 MB stay
// smooth. The server's rendering of the end is replaced once the first piece
// is here.
import { LogText } from "./ci_logtext";
import { plain, runs, type Style } from "./ci_ansi";

const lineHeight = 19; // px, as in ci.css
const tallest = 15_000_000; // px; browsers draw no taller elements, so longer logs are scrolled in proportion
const spare = 30; // lines drawn above and below the view

export function start(root: HTMLElement): void {
  new LogView(root);
}

class LogView {
  private text = new LogText();
  private view: HTMLElement;
  private space = document.createElement("div");
  private lines = document.createElement("div");
  private follow: HTMLInputElement;
  private found: HTMLElement;
  private matches: number[] = [];
  private match = -1;
  private query = "";
  private marked = 0; // line number of the address, from 1
  private drawn = false;
  private pending = false;
  private searching = 0;

  constructor(private root: HTMLElement) {
    this.view = root.querySelector(".log-view")!;
    this.follow = root.querySelector(".log-follow input")!;
    this.found = root.querySelector(".log-found")!;
    this.space.className = "log-space";
    this.lines.className = "log-lines";
    this.space.append(this.lines);
    this.marked = Number(/^#L(\d+)$/.exec(location.hash)?.[1] ?? 0);
    this.follow.checked = root.dataset.done !== "true" && !this.marked;
    this.listen();
    void this.load();
  }

  private listen(): void {
    const button = (name: string, action: () => void): void => this.root.querySelector(name)!.addEventListener("click", action);
    button(".log-top", () => this.scrollTo(0));
    button(".log-end", () => this.toEnd());
    button(".log-next", () => this.step(1));
    button(".log-prev", () => this.step(-1));
    this.view.addEventListener("scroll", () => {
      const atEnd = this.view.scrollTop + this.view.clientHeight >= this.view.scrollHeight - 3;
      if (!atEnd && this.drawn && !this.pending) this.follow.checked = false;
      this.soon();
    });
    window.addEventListener("resize", () => this.soon());
    window.addEventListener("hashchange", () => {
      this.marked = Number(/^#L(\d+)$/.exec(location.hash)?.[1] ?? 0);
      if (this.marked) this.show(this.marked - 1);
      this.soon();
    });
    this.lines.addEventListener("click", (event) => {
      const target = event.target as HTMLElement;
      const row = target.closest<HTMLElement>(".log-line.sec");
      if (row && target.tagName !== "A" && !getSelection()?.toString()) {
        this.text.toggle(Number(row.dataset.line));
        this.resize();
      }
    });
    const search = this.root.querySelector<HTMLInputElement>(".log-search")!;
    search.addEventListener("input", () => void this.search(search.value));
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.step(event.shiftKey ? -1 : 1);
    });
  }

  // load fetches pieces until the log is complete. While the job runs, the
  // server holds the request until there is more.
  private async load(): Promise<void> {
    let wait = false;
    let failures = 0;
    for (;;) {
      try {
        const response = await fetch(`${this.root.dataset.log}?offset=${this.text.size}${wait ? "&wait=1" : ""}`, { headers: { "X-Fragment": "1" } });
        if (!response.ok) throw new Error(response.statusText);
        const offset = Number(response.headers.get("X-Log-Offset"));
        const total = Number(response.headers.get("X-Log-Size"));
        const done = response.headers.get("X-Log-Done") === "true";
        const piece = new Uint8Array(await response.arrayBuffer());
        if (offset !== this.text.size) this.text.clear(); // it was started over
        if (offset === this.text.size) this.text.append(piece);
        failures = 0;
        const complete = this.text.size >= total;
        if (complete && done) this.text.finish();
        this.grown(total, complete && done);
        if (complete && done) return;
        wait = complete;
      } catch {
        // The server restarts or the network is away: try again, less often.
        failures++;
        await new Promise((resolve) => setTimeout(resolve, Math.min(15000, 1000 * failures)));
      }
    }
  }

  private grown(total: number, done: boolean): void {
    if (this.text.size === 0) return;
    if (!this.drawn) {
      this.drawn = true;
      this.view.replaceChildren(this.space);
      this.root.querySelectorAll<HTMLElement>(".log-bar [hidden]").forEach((e) => {
        if (!e.matches(".log-found, .log-prev, .log-next")) e.hidden = false;
      });
    }
    const size = this.root.querySelector(".log-size")!;
    size.textContent = this.text.size < total ? `${Math.floor((100 * this.text.size) / total)} %` : `${this.text.count.toLocaleString()} lines`;
    const label = this.root.querySelector<HTMLElement>(".log-follow")!;
    if (done) label.hidden = true;
    this.resize();
    if (this.marked && this.marked <= this.text.count && !this.shownMark) {
      this.shownMark = true;
      this.show(this.marked - 1);
    } else if (this.follow.checked) this.toEnd();
    if (this.query && this.text.size >= total) void this.search(this.query, true);
  }
  private shownMark = false;

  private get height(): number {
    return this.text.rows * lineHeight;
  }
  // ratio is how many pixels of log one pixel of scrolling stands for.
  private get ratio(): number {
    const room = Math.min(this.height, tallest) - this.view.clientHeight;
    return this.height <= tallest || room <= 0 ? 1 : (this.height - this.view.clientHeight) / room;
  }

  private resize(): void {
    this.space.style.height = `${Math.min(this.height, tallest) + 6}px`;
    this.soon();
  }

  private soon(): void {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  private draw(): void {
    if (!this.drawn) return;
    const top = this.view.scrollTop;
    const first = Math.max(0, Math.floor((top * this.ratio) / lineHeight) - spare);
    const last = Math.min(this.text.rows, first + Math.ceil(this.view.clientHeight / lineHeight) + 2 * spare);
    const fragment = document.createDocumentFragment();
    for (let row = first; row < last; row++) fragment.append(this.line(this.text.lineOf(row)));
    this.lines.style.top = `${top + (first * lineHeight - top * this.ratio)}px`;
    this.lines.replaceChildren(fragment);
  }

  private line(n: number): HTMLElement {
    const row = document.createElement("div");
    row.className = "log-line";
    const link = document.createElement("a");
    link.href = `#L${n + 1}`;
    link.textContent = String(n + 1);
    row.append(link);
    const section = this.text.section(n);
    if (section) {
      row.classList.add("sec");
      row.dataset.line = String(n);
      const fold = document.createElement("button");
      fold.type = "button";
      fold.textContent = section.closed ? "▸" : "▾";
      fold.setAttribute("aria-expanded", String(!section.closed));
      fold.setAttribute("aria-label", "Fold");
      row.append(fold);
    }
    if (n + 1 === this.marked) row.classList.add("marked");
    const hit = this.matches[this.match] === n;
    if (hit) row.classList.add("hit");
    const style: Style = this.text.styleBefore(n) ?? plain();
    for (const run of runs(this.text.line(n), style)) this.put(row, run.text, run.className, run.css);
    if (section?.seconds !== undefined) {
      const time = document.createElement("time");
      time.textContent = clock(section.seconds);
      row.append(time);
    }
    return row;
  }

  private put(row: HTMLElement, text: string, className: string, css: string): void {
    const span = document.createElement("span");
    if (className) span.className = className;
    if (css) span.style.cssText = css;
    const query = this.query.toLowerCase();
    const lower = text.toLowerCase();
    let from = 0;
    for (let at = query ? lower.indexOf(query) : -1; at >= 0; at = lower.indexOf(query, from)) {
      const mark = document.createElement("mark");
      mark.textContent = text.slice(at, at + query.length);
      span.append(text.slice(from, at), mark);
      from = at + query.length;
    }
    span.append(text.slice(from));
    row.append(span);
  }

  private scrollTo(px: number): void {
    this.view.scrollTop = px / this.ratio;
    this.soon();
  }

  private toEnd(): void {
    this.view.scrollTop = this.view.scrollHeight;
    this.soon();
  }

  // show scrolls to a line, opening the sections around it.
  private show(n: number): void {
    if (this.text.reveal(n)) this.resize();
    this.follow.checked = false;
    this.scrollTo(Math.max(0, this.text.rowOf(n) * lineHeight - this.view.clientHeight / 3));
  }

  private async search(query: string, again = false): Promise<void> {
    this.query = query;
    const turn = ++this.searching;
    if (!again) this.match = -1;
    const controls = this.root.querySelectorAll<HTMLElement>(".log-found, .log-prev, .log-next");
    controls.forEach((e) => (e.hidden = query === ""));
    this.matches = [];
    if (query) {
      const found = await this.text.find(query, () => turn !== this.searching);
      if (turn !== this.searching) return;
      this.matches = found;
      if (!again && found.length) this.step(1);
    }
    this.tell();
    this.soon();
  }

  private step(by: number): void {
    if (!this.matches.length) return;
    this.match = (this.match + by + this.matches.length) % this.matches.length;
    this.show(this.matches[this.match]!);
    this.tell();
    this.soon();
  }

  private tell(): void {
    const n = this.matches.length;
    this.found.textContent = n === 0 ? "no match" : `${this.match + 1} of ${n}${n >= 10000 ? "+" : ""}`;
  }
}

function clock(seconds: number): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`;
}
