// The pages work without this script for reading; it adds what is live: it
// keeps marked regions fresh, asks before destructive actions, copies text and
// loads larger parts only on pages that need them.

// Confirmations: <button data-confirm="Really?">.
document.addEventListener("submit", (event) => {
  const button = event.submitter as HTMLElement | null;
  const question = button?.dataset.confirm ?? (event.target as HTMLElement).dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// Copying: <button data-copy="text">.
document.addEventListener("click", (event) => {
  const button = (event.target as HTMLElement).closest<HTMLElement>("[data-copy]");
  if (!button) return;
  button.blur(); // a region that has the focus is not kept fresh
  void copy(button.dataset.copy ?? "").then((done) => {
    const before = button.textContent;
    button.textContent = done ? "Copied" : "Select and copy it by hand";
    setTimeout(() => (button.textContent = before), 1200);
  });
});

// The clipboard belongs to secure pages; over plain HTTP a hidden field does it.
async function copy(text: string): Promise<boolean> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = document.createElement("textarea");
  field.value = text;
  field.style.cssText = "position:fixed;opacity:0";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

// Live regions: <div data-live="/address" data-every="2000"> is replaced by what
// the address answers, until an answer carries no data-live any more. A region
// that someone works in (focus, open menu, selection) is left alone meanwhile.
function keepFresh(region: HTMLElement): void {
  const every = Number(region.dataset.every ?? "2000");
  const tick = async (): Promise<void> => {
    if (document.hidden || region.contains(document.activeElement) || region.querySelector("details[open].menu")) {
      schedule();
      return;
    }
    try {
      const response = await fetch(region.dataset.live!, { headers: { "X-Fragment": "1" } });
      if (response.ok) {
        const holder = document.createElement("template");
        holder.innerHTML = await response.text();
        const next = holder.content.firstElementChild as HTMLElement | null;
        if (next) {
          // What somebody has opened or folded stays so.
          next.querySelectorAll<HTMLDetailsElement>("details[id]").forEach((d) => {
            const was = document.getElementById(d.id);
            if (was instanceof HTMLDetailsElement) d.open = was.open;
          });
          if (next.outerHTML !== region.outerHTML) {
            const kept = keepParts(region, next);
            region.replaceWith(next);
            region = next;
            kept.forEach((part) => part.dispatchEvent(new CustomEvent("slipway:data")));
            startParts(region);
            document.dispatchEvent(new CustomEvent("slipway:refreshed", { detail: next }));
          }
          if (!region.dataset.live) return;
        }
      }
    } catch {
      // The server restarts or the network is away: try again.
    }
    schedule();
  };
  const schedule = (): void => void setTimeout(() => void tick(), every);
  schedule();
}
// Drawn parts with <div data-keep="name"> move over to the renewed region with
// their new data, so that a chart is not made anew each time.
function keepParts(before: HTMLElement, after: HTMLElement): HTMLElement[] {
  const kept: HTMLElement[] = [];
  after.querySelectorAll<HTMLElement>("[data-keep]").forEach((fresh) => {
    const old = before.querySelector<HTMLElement>(`[data-keep="${CSS.escape(fresh.dataset.keep ?? "")}"]`);
    if (!old) return;
    const changed = old.dataset.points !== fresh.dataset.points;
    Object.assign(old.dataset, fresh.dataset);
    fresh.replaceWith(old);
    if (changed) kept.push(old);
  });
  // What somebody has opened stays open.
  const opened = [...before.querySelectorAll("details")].map((d) => d.open);
  const fresh = [...after.querySelectorAll("details")];
  if (opened.length === fresh.length) fresh.forEach((d, i) => (d.open = opened[i] ?? d.open));
  return kept;
}
document.querySelectorAll<HTMLElement>("[data-live]").forEach(keepFresh);

// Times are shown in the reader's zone on hover.
function localTimes(root: ParentNode): void {
  root.querySelectorAll<HTMLTimeElement>("time[datetime]").forEach((t) => {
    const when = new Date(t.dateTime);
    if (!Number.isNaN(when.valueOf())) t.title = when.toLocaleString();
  });
}
localTimes(document);
document.addEventListener("slipway:refreshed", (event) => localTimes((event as CustomEvent<HTMLElement>).detail));

// Ctrl+Enter sends the form of a text by its first button.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !(event.target instanceof HTMLTextAreaElement)) return;
  event.target.form?.requestSubmit(event.target.form.querySelector<HTMLButtonElement>("button:not([type=button])"));
});

// A choice that changes the other choices of its form: <form data-resubmit>.
document.querySelectorAll<HTMLFormElement>("form[data-resubmit]").forEach((form) => {
  form.addEventListener("change", (event) => {
    const name = (event.target as HTMLSelectElement).name;
    if (name.endsWith("_project_id")) {
      form.querySelectorAll<HTMLSelectElement>("select").forEach((s) => {
        if (s.name === name.replace("_project_id", "_branch")) s.selectedIndex = -1;
      });
      form.submit();
    }
  });
});

// Larger parts, each loaded where its element is: the chart, the job log.
const parts: Record<string, () => Promise<{ start: (element: HTMLElement) => void }>> = {
  chart: () => import("./chart"),
  promql: () => import("./promql"),
  "ci-log": () => import("./ci_log"),
  "ci-rows": () => import("./ci_rows"),
  "ci-editor": () => import("./ci_editor"),
  diff: () => import("./diff"),
  "gitops-log": () => import("./gitops_log"),
};
const started = new WeakSet<HTMLElement>();
function startParts(root: ParentNode): void {
  root.querySelectorAll<HTMLElement>("[data-part]").forEach((element) => {
    const load = parts[element.dataset.part ?? ""];
    if (!load || started.has(element)) return;
    started.add(element);
    void load().then((part) => part.start(element));
  });
}
startParts(document);

// Where a row of links scrolls, the one of this page is in view.
document.querySelectorAll<HTMLElement>(".main, .side nav, .tabs").forEach((nav) => {
  const here = nav.querySelector<HTMLElement>("[aria-current]");
  if (here && nav.scrollWidth > nav.clientWidth) nav.scrollLeft += here.getBoundingClientRect().left - nav.getBoundingClientRect().left - (nav.clientWidth - here.offsetWidth) / 2;
});
