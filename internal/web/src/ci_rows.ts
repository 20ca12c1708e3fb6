// Rows of variables in a form: another empty row appears when the last one is
// used.
export function start(element: HTMLElement): void {
  element.addEventListener("input", () => {
    const rows = element.querySelectorAll<HTMLElement>(".var-row");
    const last = rows[rows.length - 1];
    if (!last?.querySelector<HTMLInputElement>("input")?.value) return;
    const next = last.cloneNode(true) as HTMLElement;
    next.querySelectorAll<HTMLInputElement | HTMLTextAreaElement>("input, textarea").forEach((field) => (field.value = ""));
    next.querySelector("select")!.selectedIndex = 0;
    last.after(next);
  });
}
