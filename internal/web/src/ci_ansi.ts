// ANSI colours of logs, by the same rules and classes as the server's rendering.
export interface Style {
  fg: string;
  bg: string;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  under: boolean;
  gone: boolean;
}

export interface Run {
  text: string;
  className: string;
  css: string;
}

export const plain = (): Style => ({ fg: "", bg: "", bold: false, dim: false, italic: false, under: false, gone: false });

const escape = /\x1b(?:\[([0-9;?]*)([A-Za-z])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])/g;
const unprintable = /[\x00-\x08\x0b-\x1f\x7f]/g;

// runs splits a line into pieces of one style, changing style on the way.
export function runs(line: string, style: Style): Run[] {
  const out: Run[] = [];
  const put = (text: string): void => {
    text = text.replace(unprintable, "");
    if (text) out.push({ text, ...look(style) });
  };
  let last = 0;
  escape.lastIndex = 0;
  for (let m = escape.exec(line); m; m = escape.exec(line)) {
    put(line.slice(last, m.index));
    last = m.index + m[0].length;
    if (m[2] === "m") apply(style, m[1] ?? "");
  }
  put(line.slice(last));
  return out;
}

function look(s: Style): { className: string; css: string } {
  const names: string[] = [];
  let css = "";
  for (const [value, prefix, property] of [
    [s.fg, "f", "color"],
    [s.bg, "b", "background"],
  ] as const) {
    if (value.startsWith("#")) css += `${property}:${value};`;
    else if (value) names.push(`a-${prefix}${value}`);
  }
  if (s.bold) names.push("a-bold");
  if (s.dim) names.push("a-dim");
  if (s.italic) names.push("a-italic");
  if (s.under) names.push("a-under");
  if (s.gone) names.push("a-gone");
  return { className: names.join(" "), css };
}

function apply(s: Style, params: string): void {
  const n = params.split(";").map((p) => Number(p) || 0);
  for (let i = 0; i < n.length; i++) {
    const v = n[i]!;
    if (v === 0) Object.assign(s, plain());
    else if (v === 1) s.bold = true;
    else if (v === 2) s.dim = true;
    else if (v === 3) s.italic = true;
    else if (v === 4) s.under = true;
    else if (v === 9) s.gone = true;
    else if (v === 22) s.bold = s.dim = false;
    else if (v === 23) s.italic = false;
    else if (v === 24) s.under = false;
    else if (v === 29) s.gone = false;
    else if (v >= 30 && v <= 37) s.fg = String(v - 30);
    else if (v === 39) s.fg = "";
    else if (v >= 40 && v <= 47) s.bg = String(v - 40);
    else if (v === 49) s.bg = "";
    else if (v >= 90 && v <= 97) s.fg = String(v - 82);
    else if (v >= 100 && v <= 107) s.bg = String(v - 92);
    else if (v === 38 || v === 48) {
      const [color, used] = extended(n.slice(i + 1));
      i += used;
      if (v === 38) s.fg = color;
      else s.bg = color;
    }
  }
}

function extended(n: number[]): [string, number] {
  if (n.length >= 2 && n[0] === 5) return [indexed(n[1]!), 2];
  if (n.length >= 4 && n[0] === 2) return [hex(n[1]!, n[2]!, n[3]!), 4];
  return ["", n.length];
}

function indexed(n: number): string {
  if (n < 0 || n > 255) return "";
  if (n < 16) return String(n);
  if (n >= 232) {
    const g = 8 + (n - 232) * 10;
    return hex(g, g, g);
  }
  n -= 16;
  const level = (i: number): number => (i === 0 ? 0 : 55 + i * 40);
  return hex(level(Math.floor(n / 36)), level(Math.floor(n / 6) % 6), level(n % 6));
}

function hex(r: number, g: number, b: number): string {
  return "#" + [r, g, b].map((v) => Math.min(255, Math.max(0, v)).toString(16).padStart(2, "0")).join("");
}
