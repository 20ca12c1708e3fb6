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

// numberOf is the number of the line that a part of the diff belongs to.
function numberOf(root: HTMLElement, at: EventTarget | null): HTMLAnchorElement | null {
  const cell = (at as HTMLElement | null)?.closest?.<HTMLTableCellElement>("td");
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
}

const longest = 200; // lines of one comment

// linesTo lists the numbers of the lines that a comment ending with a line can
// begin at, the line itself last: those of its side, up to the hunk's head.
function linesTo(root: HTMLElement, number: HTMLAnchorElement): HTMLAnchorElement[] {
  const out = [number];
  const side = number.closest("td")!.cellIndex;
  for (let row = number.closest("tr")!.previousElementSibling; row && out.length < longest; row = row.previousElementSibling) {
    if (row.classList.contains("d-hunk")) break;
    if (row.classList.contains("d-notes")) continue;
    const links = root.classList.contains("parallel") ? (row as HTMLTableRowElement).cells[side]?.querySelectorAll<HTMLAnchorElement>("a[data-l]") : row.querySelectorAll<HTMLAnchorElement>("a[data-l]");
    if (links?.length) out.unshift(links[links.length - 1]!);
  }
  return out;
}

// inOrder puts two lines of a file in order; null where no comment can span
// them.
function inOrder(root: HTMLElement, a: HTMLAnchorElement, b: HTMLAnchorElement): [HTMLAnchorElement, HTMLAnchorElement] | null {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    const first = linesTo(root, to).find((l) => l.dataset.l === from.dataset.l);
    if (first) return [first, to];
  }
  return null;
}

// mark shows which lines are chosen.
function mark(root: HTMLElement, from: HTMLAnchorElement | null, to: HTMLAnchorElement | null): void {
  root.querySelectorAll(".d-sel").forEach((e) => e.classList.remove("d-sel"));
  if (!from || !to) return;
  const lines = linesTo(root, to);
  for (const line of lines.slice(lines.findIndex((l) => l.dataset.l === from.dataset.l))) {
    const cell = line.closest("td")!;
    if (!root.classList.contains("parallel")) cell.parentElement!.classList.add("d-sel");
    else [cell, cell.nextElementSibling].forEach((c) => c?.classList.add("d-sel"));
  }
}

// comments puts one button beside the line that is pointed at or focused.
// Dragging from it or from a number, and Shift with a click on another number,
// choose several lines.
function comments(root: HTMLElement, template: HTMLTemplateElement): void {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "note-add";
  button.textContent = "+";
  const show = (event: Event): void => {
    if (event.target === button || dragged) return;
    const number = numberOf(root, event.target);
    if (!number || number.nextElementSibling === button) return;
    button.setAttribute("aria-label", "Comment on line " + (number.textContent ?? ""));
    number.after(button);
  };
  let dragged: HTMLAnchorElement | null = null; // where the mouse went down
  let last: HTMLAnchorElement | null = null; // the number that was clicked last
  let span: [HTMLAnchorElement, HTMLAnchorElement] | null = null;
  root.addEventListener("mouseover", show);
  root.addEventListener("focusin", show);
  button.addEventListener("click", () => {
    const number = button.previousElementSibling as HTMLAnchorElement | null;
    if (number) write(root, template, (last = number));
  });
  root.addEventListener("keydown", (event) => {
    const number = (event.target as HTMLElement).closest<HTMLAnchorElement>("a[data-l]");
    if (number && event.key === "c" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      write(root, template, number);
    }
  });
  root.addEventListener("mousedown", (event) => {
    const at = event.target as HTMLElement;
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || !at.closest(".n")) return;
    dragged = numberOf(root, at);
    if (dragged && at !== button) event.preventDefault(); // no text is marked meanwhile
  });
  root.addEventListener("mousemove", (event) => {
    if (!dragged) return;
    const here = numberOf(root, event.target);
    if (!here) return;
    span = here.dataset.l === dragged.dataset.l ? null : inOrder(root, dragged, here);
    mark(root, span?.[0] ?? null, span?.[1] ?? null);
  });
  root.addEventListener("dragstart", (event) => {
    if ((event.target as HTMLElement).closest("a[data-l]")) event.preventDefault();
  });
  document.addEventListener("mouseup", () => {
    if (dragged && span) write(root, template, span[1], span[0]);
    dragged = span = null;
  });
  root.addEventListener("click", (event) => {
    const number = (event.target as HTMLElement).closest<HTMLAnchorElement>("a[data-l]");
    if (!number || event.ctrlKey || event.metaKey) return;
    if (!event.shiftKey) {
      last = number;
      return;
    }
    event.preventDefault(); // it would open another window
    const from = last ?? number;
    const both = from.isConnected && from.closest(".diff") === number.closest(".diff") ? inOrder(root, from, number) : null;
    write(root, template, both?.[1] ?? number, both?.[0]);
  });
}

// labelOf words a line as the server does: +3 was added, -3 removed.
function labelOf(line: HTMLAnchorElement): string {
  const [oldLine, newLine] = line.dataset.l!.split(",");
  if (oldLine === "0") return "+" + newLine;
  return newLine === "0" ? "-" + oldLine : newLine!;
}

// codeOf is the text of a line on the new side.
function codeOf(root: HTMLElement, line: HTMLAnchorElement): string {
  if (root.classList.contains("parallel")) return line.closest("td")!.nextElementSibling?.textContent ?? "";
  return line.closest("tr")!.querySelector("td.s")?.textContent?.slice(1) ?? "";
}

// write opens the form below a line, or goes to the one that is open there;
// from is the first line of several.
function write(root: HTMLElement, template: HTMLTemplateElement, number: HTMLAnchorElement, from: HTMLAnchorElement = number): void {
  const row = number.closest("tr")!;
  const file = number.closest<HTMLElement>(".diff")!;
  const [oldLine, newLine] = number.dataset.l!.split(",");
  const open = row.nextElementSibling;
  if (open?.classList.contains("d-form")) {
    const choice = open.querySelector<HTMLSelectElement>("select[name=from_line]")!;
    if (from !== number) choice.value = from.dataset.l!;
    choice.dispatchEvent(new Event("change"));
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
  const lines = linesTo(root, number);
  const choice = form.querySelector<HTMLSelectElement>("select[name=from_line]")!;
  for (const line of lines) choice.add(new Option(labelOf(line), line.dataset.l!));
  choice.value = from.dataset.l!;
  choice.nextElementSibling!.textContent = "to " + labelOf(number);
  choice.closest("label")!.hidden = lines.length < 2;
  const chosen = (): HTMLAnchorElement[] => lines.slice(choice.selectedIndex);
  const show = (): void => mark(root, chosen().length > 1 ? chosen()[0]! : null, number);
  choice.addEventListener("change", show);
  // A suggestion begins as the lines are.
  const suggest = form.querySelector<HTMLElement>("[data-suggest]");
  if (newLine === "0") suggest?.remove();
  suggest?.addEventListener("click", () => {
    const text = form.querySelector("textarea")!;
    const on = chosen().filter((line) => !line.dataset.l!.endsWith(",0"));
    const code = on.map((line) => codeOf(root, line)).join("\n");
    const before = text.value === "" || text.value.endsWith("\n") ? text.value : text.value + "\n";
    const fence = "```suggestion:-" + (on.length - 1) + "+0\n";
    text.value = before + fence + code + "\n```\n";
    text.focus();
    const at = before.length + fence.length;
    text.setSelectionRange(at, at + code.length);
  });
  const close = (): void => {
    holder.remove();
    mark(root, null, null);
    number.focus();
  };
  form.querySelector("[data-cancel]")!.addEventListener("click", close);
  holder.addEventListener("keydown", (event) => {
    const text = form.querySelector("textarea")!;
    if (event.key === "Escape" && (text.value.trim() === "" || confirm("Throw the comment away?"))) close();
  });
  row.after(holder);
  show();
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
