// Completion in PromQL expressions: <textarea data-part="promql">. Names of
// metrics, labels and values come from the platform's own Prometheus API.
const functions = (
  "abs absent absent_over_time avg_over_time ceil changes clamp clamp_max clamp_min count_over_time day_of_month day_of_week delta deriv exp floor histogram_quantile hour " +
  "increase irate label_join label_replace last_over_time ln log10 log2 max_over_time min_over_time month predict_linear quantile_over_time rate resets round scalar sort sort_desc " +
  "sqrt stddev_over_time sum_over_time time timestamp vector year"
).split(" ");
const words = "sum avg min max count topk bottomk quantile stddev group count_values by without on ignoring group_left group_right and or unless offset bool".split(" ");

interface Choice {
  text: string;
  kind: string;
}

const known = new Map<string, Promise<string[]>>();

// values asks the API once for a list of names. One that could not be had is
// asked for again the next time.
function values(path: string): Promise<string[]> {
  let list = known.get(path);
  if (!list) {
    list = fetch(`/prometheus/api/v1/${path}`)
      .then((response) => response.json())
      .then((answer) => {
        if (answer.status !== "success") throw new Error(answer.error);
        return answer.data as string[];
      })
      .catch(() => {
        known.delete(path);
        return [];
      });
    known.set(path, list);
  }
  return list;
}

export function start(element: HTMLElement): void {
  const field = element as HTMLTextAreaElement;
  const box = document.createElement("ul");
  box.className = "completion";
  box.id = `completion-${Math.random().toString(36).slice(2)}`;
  box.setAttribute("role", "listbox");
  box.hidden = true;
  field.after(box);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": box.id, "aria-expanded": "false" })) field.setAttribute(name, value);
  let choices: Choice[] = [];
  let chosen = 0;
  let begin = 0;

  const close = (): void => {
    box.hidden = true;
    field.setAttribute("aria-expanded", "false");
  };
  const mark = (): void => {
    [...box.children].forEach((one, i) => one.setAttribute("aria-selected", String(i === chosen)));
    box.children[chosen]?.scrollIntoView({ block: "nearest" });
  };
  const take = (i: number): void => {
    const choice = choices[i];
    if (!choice) return;
    const end = field.selectionStart;
    field.setRangeText(choice.text + (choice.kind === "function" ? "(" : ""), begin, end, "end");
    close();
    field.focus();
  };
  const offer = async (): Promise<void> => {
    const at = field.selectionStart;
    const found = await candidates(field.value.slice(0, at));
    if (field.selectionStart !== at) return; // typed on
    const typed = found.word.toLowerCase();
    begin = at - found.word.length;
    choices = found.choices
      .filter((one) => one.text.toLowerCase().includes(typed) && one.text !== found.word)
      .sort((a, b) => Number(!a.text.toLowerCase().startsWith(typed)) - Number(!b.text.toLowerCase().startsWith(typed)) || a.text.length - b.text.length || (a.text < b.text ? -1 : 1))
      .slice(0, 12);
    if (choices.length === 0 || (found.word.length < 2 && !found.eager)) {
      close();
      return;
    }
    chosen = 0;
    box.replaceChildren(
      ...choices.map((one, i) => {
        const row = document.createElement("li");
        row.setAttribute("role", "option");
        row.textContent = one.text;
        const kind = document.createElement("span");
        kind.className = "dim";
        kind.textContent = one.kind;
        row.append(kind);
        row.addEventListener("mousedown", (event) => {
          event.preventDefault();
          take(i);
        });
        return row;
      }),
    );
    box.hidden = false;
    field.setAttribute("aria-expanded", "true");
    mark();
  };
  field.addEventListener("input", () => void offer());
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && (box.hidden || event.ctrlKey)) {
      event.preventDefault(); // Enter runs, Shift+Enter breaks the line, as in Prometheus' own page
      field.form?.requestSubmit();
      return;
    }
    if (box.hidden) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") chosen = (chosen + (event.key === "ArrowDown" ? 1 : choices.length - 1)) % choices.length;
    else if (event.key === "Enter" || event.key === "Tab") take(chosen);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    mark();
  });
}

// candidates tells what may stand where the text ends.
export async function candidates(text: string): Promise<{ word: string; choices: Choice[]; eager: boolean }> {
  const label = /([a-zA-Z_:][\w:]*)?\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*$/.exec(text);
  const match = label?.[1] ? `?match[]=${encodeURIComponent(label[1])}` : "";
  const quoted = label && /([a-zA-Z_]\w*)\s*(?:=~?|!=|!~)\s*"([^"]*)$/.exec(text);
  if (quoted) return { word: quoted[2] ?? "", eager: true, choices: (await values(`label/${quoted[1]}/values${match}`)).map((text) => ({ text, kind: "value" })) };
  const word = /[\w:]*$/.exec(text)?.[0] ?? "";
  const grouped = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*$/.test(text);
  if (label || grouped) return { word, eager: true, choices: (await values(`labels${match}`)).map((text) => ({ text, kind: "label" })) };
  return {
    word,
    eager: false,
    choices: [
      ...(await values("label/__name__/values")).map((text) => ({ text, kind: "metric" })),
      ...functions.map((text) => ({ text, kind: "function" })),
      ...words.map((text) => ({ text, kind: "" })),
    ],
  };
}
