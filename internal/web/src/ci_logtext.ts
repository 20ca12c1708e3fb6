// The text of a log: its bytes, where lines begin, which sections there are
// and which lines are visible. Lines are numbered from 0 here.
import { plain, runs, type Style } from "./ci_ansi";

export interface Section {
  line: number;
  end: number; // the line after its last; Infinity while it is open
  began: number;
  seconds?: number;
  closed: boolean;
}

const mark = /section_(start|end):(\d+):([\w.-]+)(?:\[([^\]]*)\])?\r?(?:\x1b\[0K)?/g;
const stamped = /^\d{4}-\d\d-\d\dT[\d:.]+Z \d\d[OE][ +]/; // the runner's timestamps
const longest = 20000; // characters of a line that are drawn
const maxMatches = 10000;
const newline = 10;
const escapeByte = 27;
const marker = new TextEncoder().encode("section_");

export class LogText {
  size = 0;
  count = 0; // lines
  rows = 0; // visible lines
  private bytes = new Uint8Array(1 << 20);
  private starts = new Uint32Array(1 << 14);
  private visible = new Uint32Array(1 << 14);
  private sections = new Map<number, Section>();
  private open: { name: string; section: Section }[] = [];
  private silent = new Set<number>(); // lines that hold marks only
  private styles = new Map<number, Style>();
  private carry: Style | null = null;
  private indexed = 0; // bytes that belong to indexed lines
  private decoder = new TextDecoder();

  clear(): void {
    this.size = this.count = this.rows = this.indexed = 0;
    this.sections.clear();
    this.open = [];
    this.silent.clear();
    this.styles.clear();
    this.carry = null;
  }

  // append adds a piece and indexes the lines that are complete with it. The
  // line that is not is shown once it ends, or by finish.
  append(piece: Uint8Array): void {
    if (this.size + piece.length > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.size + piece.length));
      grown.set(this.bytes.subarray(0, this.size));
      this.bytes = grown;
    }
    this.bytes.set(piece, this.size);
    this.size += piece.length;
    const held = this.bytes.subarray(0, this.size);
    for (;;) {
      const at = held.indexOf(newline, this.indexed);
      if (at < 0) break;
      this.add(this.indexed, at);
      this.indexed = at + 1;
    }
  }

  finish(): void {
    if (this.indexed < this.size) {
      this.add(this.indexed, this.size);
      this.indexed = this.size;
    }
  }

  private add(from: number, to: number): void {
    if (this.count + 2 > this.starts.length) this.starts = grow(this.starts);
    const n = this.count++;
    this.starts[n] = from;
    this.starts[n + 1] = to + 1;
    if (this.carry) this.styles.set(n, this.carry);
    if (this.mayMark(from, to)) this.readMarks(n);
    this.readStyle(n, from, to);
    if (!this.silent.has(n) && !this.open.some((o) => o.section.closed && o.section.line !== n)) this.push(n);
  }

  private push(n: number): void {
    if (this.rows >= this.visible.length) this.visible = grow(this.visible);
    this.visible[this.rows++] = n;
  }

  // mayMark looks for "section_" near the beginning of a line.
  private mayMark(from: number, to: number): boolean {
    const last = Math.min(to - marker.length, from + 48);
    outer: for (let i = from; i <= last; i++) {
      for (let k = 0; k < marker.length; k++) if (this.bytes[i + k] !== marker[k]) continue outer;
      return true;
    }
    return false;
  }

  private readMarks(n: number): void {
    const raw = this.raw(n);
    let header = false;
    let marked = false;
    for (const m of raw.matchAll(mark)) {
      marked = true;
      const [, kind, at, name, options] = m as unknown as [string, string, string, string, string | undefined];
      if (kind === "start") {
        header = true;
        const section: Section = { line: n, end: Infinity, began: Number(at), closed: /collapsed=true/.test(options ?? "") };
        this.sections.set(n, section);
        this.open.push({ name, section });
        continue;
      }
      const index = this.open.findLastIndex((o) => o.name === name);
      if (index < 0) continue;
      const ended = this.open.splice(index);
      for (const { section } of ended) section.end = n;
      ended[0]!.section.seconds = Math.max(0, Number(at) - ended[0]!.section.began);
    }
    if (marked && !header && this.line(n).trim() === "") this.silent.add(n);
  }

  // readStyle finds out whether a line leaves colours on for the next.
  private readStyle(n: number, from: number, to: number): void {
    if (!this.bytes.subarray(from, to).includes(escapeByte)) return;
    const end = this.raw(n).slice(-12);
    if (/\x1b\[0?(?:;?0?)*m[^\x1b]*(?:\x1b\[0?K)?$/.test(end)) {
      this.carry = null;
      return;
    }
    const style = { ...(this.carry ?? plain()) };
    runs(this.raw(n), style);
    this.carry = Object.values(style).some(Boolean) ? style : null;
  }

  private raw(n: number): string {
    return this.decoder.decode(this.bytes.subarray(this.starts[n]!, Math.min(this.starts[n + 1]! - 1, this.size)));
  }

  // line is the text of a line as it is shown, escape sequences included.
  line(n: number): string {
    let text = this.raw(n).replace(stamped, "").replace(mark, "").replace(/\r+$/, "");
    const over = text.lastIndexOf("\r");
    if (over >= 0) text = text.slice(over + 1);
    return text.length > longest ? text.slice(0, longest) + "…" : text;
  }

  styleBefore(n: number): Style | undefined {
    const style = this.styles.get(n);
    return style && { ...style };
  }

  section(n: number): Section | undefined {
    return this.sections.get(n);
  }

  lineOf(row: number): number {
    return this.visible[row]!;
  }

  // rowOf is the row of a line, or of the next visible one.
  rowOf(n: number): number {
    let low = 0;
    let high = this.rows;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.visible[middle]! < n) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  toggle(n: number): void {
    const section = this.sections.get(n);
    if (!section) return;
    section.closed = !section.closed;
    this.rebuild();
  }

  // reveal opens the sections around a line; it reports whether any was closed.
  reveal(n: number): boolean {
    let changed = false;
    for (const s of this.sections.values()) {
      if (s.closed && s.line < n && n < s.end) {
        s.closed = false;
        changed = true;
      }
    }
    if (changed) this.rebuild();
    return changed;
  }

  private rebuild(): void {
    this.rows = 0;
    const closed = [...this.sections.values()].filter((s) => s.closed).sort((a, b) => a.line - b.line);
    let next = 0;
    let hiddenUntil = 0;
    for (let n = 0; n < this.count; n++) {
      const hidden = n < hiddenUntil;
      while (next < closed.length && closed[next]!.line <= n) {
        const s = closed[next++]!;
        if (s.line === n || hidden) hiddenUntil = Math.max(hiddenUntil, s.end);
      }
      if (!hidden && !this.silent.has(n)) this.push(n);
    }
  }

  // find returns the lines that hold a text, letters of either case alike. It
  // works in slices, so that the page stays responsive.
  async find(query: string, canceled: () => boolean): Promise<number[]> {
    const fold = (b: number): number => (b >= 65 && b <= 90 ? b + 32 : b);
    const want = new TextEncoder().encode(query).map(fold);
    const first = want[0]!;
    const other = first >= 97 && first <= 122 ? first - 32 : first;
    const out: number[] = [];
    const bytes = this.bytes;
    const end = this.indexed;
    let line = 0;
    let pause = 4 << 20;
    outer: for (let i = 0; i + want.length <= end; i++) {
      if (i > pause) {
        pause = i + (4 << 20);
        await new Promise((resolve) => setTimeout(resolve));
        if (canceled()) return [];
      }
      const b = bytes[i]!;
      if (b !== first && b !== other) continue;
      for (let k = 1; k < want.length; k++) if (fold(bytes[i + k]!) !== want[k]) continue outer;
      while (line + 1 < this.count && this.starts[line + 1]! <= i) line++;
      if (!this.silent.has(line)) out.push(line);
      if (out.length >= maxMatches) break;
      i = this.starts[line + 1]! - 1;
    }
    return out;
  }
}

function grow(a: Uint32Array): Uint32Array<ArrayBuffer> {
  const out = new Uint32Array(a.length * 2);
  out.set(a);
  return out;
}
