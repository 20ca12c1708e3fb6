// Charts of Prometheus range answers: <div data-part="chart" data-query="..."
// data-minutes="60" data-unit="s" data-limit="0.5">. The query goes to the
// platform's own Prometheus API with the session of the page. With
// data-points="[[seconds, value], ...]" those values are drawn instead, and
// drawn again on the event slipway:data.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

interface Series {
  metric: Record<string, string>;
  values: [number, string][];
}

const palette = ["#0b8f97", "#c25b1f", "#5a62c8", "#2e9a55", "#b0407f", "#8a7a16", "#3a7ab8", "#8b4bb0"];

export function start(element: HTMLElement): void {
  if (element.dataset.points !== undefined) {
    drawPoints(element);
    element.addEventListener("slipway:data", () => drawPoints(element));
    new ResizeObserver(() => charts.get(element)?.setSize({ width: element.clientWidth || 300, height: Number(element.dataset.height ?? "240") })).observe(element);
    return;
  }
  void draw(element);
  element.addEventListener("dblclick", () => {
    if (zoomed.delete(element)) void draw(element);
  });
  if (element.dataset.every) setInterval(() => void draw(element), Number(element.dataset.every));
}

const charts = new WeakMap<HTMLElement, uPlot>();

// The time that was marked in a chart, in seconds; a double click undoes it.
const zoomed = new WeakMap<HTMLElement, [number, number]>();

// mostSeries is how many series one chart shows.
const mostSeries = 40;

async function draw(element: HTMLElement): Promise<void> {
  const minutes = Number(element.dataset.minutes ?? "60");
  const zoom = zoomed.get(element);
  const end = zoom?.[1] ?? Number(element.dataset.end || Math.floor(Date.now() / 1000));
  const begin = zoom?.[0] ?? end - minutes * 60;
  // At most 11,000 points, as the API has it; by default one for each 4 pixels or so.
  const step = Math.max(zoom ? 1 : 5, Math.ceil((end - begin) / (element.dataset.step && !zoom ? 11000 : 240)), zoom ? 0 : Number(element.dataset.step || "0"));
  const body = new URLSearchParams({ query: element.dataset.query ?? "", start: String(begin), end: String(end), step: String(step) });
  let series: Series[];
  let answerNotes = "";
  try {
    const response = await fetch("/prometheus/api/v1/query_range", { method: "POST", body });
    if (response.status === 401) throw new Error("you are no longer signed in");
    const answer = await response.json();
    if (answer.status !== "success") throw new Error(answer.error ?? response.statusText);
    series = answer.data.result as Series[];
    answerNotes = [...(answer.warnings ?? []), ...(answer.infos ?? [])].join(" ");
  } catch (problem) {
    say(element, `The query failed: ${(problem as Error).message}`);
    return;
  }
  if (series.length === 0) {
    say(element, "No data in this time.");
    return;
  }
  const times: number[] = [];
  for (let t = begin; t <= end; t += step) times.push(t);
  const columns = series.slice(0, mostSeries).map((one) => {
    const at = new Map(one.values.map(([t, v]) => [Math.round((t - begin) / step), Number(v)]));
    return times.map((_, i) => {
      const v = at.get(i);
      return v === undefined || !Number.isFinite(v) ? null : v;
    });
  });
  const limit = element.dataset.limit ? Number(element.dataset.limit) : undefined;
  if (limit !== undefined) columns.push(times.map(() => limit));
  const data = [times, ...columns] as uPlot.AlignedData;
  charts.get(element)?.destroy();
  element.textContent = "";
  const unit = element.dataset.unit ?? "";
  const style = getComputedStyle(document.documentElement);
  const axis = { stroke: style.getPropertyValue("--dim"), grid: { stroke: style.getPropertyValue("--line") }, ticks: { stroke: style.getPropertyValue("--line") } };
  const options: uPlot.Options = {
    width: element.clientWidth || 600,
    height: Number(element.dataset.height ?? "240"),
    hooks: {
      setSelect: [
        (u: uPlot) => {
          if (u.select.width < 8) return;
          const [from, to] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
          if (to - from < 10) return;
          zoomed.set(element, [Math.floor(from), Math.ceil(to)]);
          void draw(element);
        },
      ],
    },
    cursor: { drag: { x: true, y: false, setScale: false } },
    axes: [axis, { ...axis, size: 64, values: (_u: uPlot, splits: number[]) => splits.map((v) => format(v, unit)) }],
    series: [
      {},
      ...series.slice(0, mostSeries).map((one, i) => ({ label: name(one.metric), stroke: palette[i % palette.length], width: 1.5, value: (_u: uPlot, v: number | null) => (v === null ? "–" : format(v, unit)) })),
      ...(limit === undefined ? [] : [{ label: "limit", stroke: style.getPropertyValue("--bad"), dash: [6, 4], width: 1 }]),
    ],
  };
  charts.set(element, new uPlot(options, data, element));
  const note = document.createElement("p");
  note.className = "dim";
  const hidden = series.length - mostSeries;
  note.textContent = [
    hidden > 0 ? `${hidden.toLocaleString()} more series are not drawn; aggregate them, for instance with topk(20, …).` : "",
    zoom ? "Double click shows the whole time again." : "",
    answerNotes,
  ].filter(Boolean).join(" ");
  if (note.textContent) element.append(note);
}

function drawPoints(element: HTMLElement): void {
  const points = aMinute(JSON.parse(element.dataset.points || "[]") as [number, number | null][]);
  const limit = element.dataset.limit ? Number(element.dataset.limit) : undefined;
  const columns: (number | null)[][] = [points.map(([, v]) => v)];
  if (limit !== undefined) columns.push(points.map(() => limit));
  const data = [points.map(([t]) => t), ...columns] as uPlot.AlignedData;
  const drawn = charts.get(element);
  if (drawn) {
    drawn.setData(data);
    return;
  }
  const style = getComputedStyle(document.documentElement);
  const axis = { stroke: style.getPropertyValue("--dim"), grid: { stroke: style.getPropertyValue("--line") }, ticks: { stroke: style.getPropertyValue("--line") } };
  const options: uPlot.Options = {
    width: element.clientWidth || 300,
    height: Number(element.dataset.height ?? "150"),
    // Values and limit both fit, with some air above and below.
    scales: {
      y: {
        range: (_u, low, high) => {
          const from = Math.min(low ?? 0, limit ?? low ?? 0);
          const to = Math.max(high ?? 1, limit ?? high ?? 1);
          return uPlot.rangeNum(from, to > from ? to : from + 1, 0.15, true);
        },
      },
    },
    axes: [axis, { ...axis, size: 56 }],
    legend: { show: true, live: true },
    series: [
      {},
      { label: element.dataset.label ?? "value", stroke: palette[0], width: 1.5, points: { show: true, size: 6, fill: palette[0] }, value: (_u, v) => (v === null || v === undefined ? "–" : String(Number(v.toPrecision(4)))) },
      ...(limit === undefined ? [] : [{ label: "limit", stroke: style.getPropertyValue("--bad"), dash: [6, 4], width: 1.5, points: { show: false } }]),
    ],
  };
  charts.set(element, new uPlot(options, data, element));
}

// aMinute surrounds few values with the rest of a minute: a single one would
// get an axis of years, and no line for the limit.
function aMinute(points: [number, number | null][]): [number, number | null][] {
  const first = points[0]?.[0];
  const last = points[points.length - 1]?.[0];
  if (first === undefined || last === undefined || last - first >= 60) return points;
  const missing = (60 - (last - first)) / 2;
  return [[first - missing, null], ...points, [last + missing, null]];
}

function say(element: HTMLElement, text: string): void {
  charts.get(element)?.destroy();
  element.textContent = text;
}

function name(metric: Record<string, string>): string {
  const labels = Object.entries(metric).filter(([k]) => k !== "__name__");
  const inner = labels.map(([k, v]) => `${k}="${v}"`).join(", ");
  return (metric["__name__"] ?? "") + (inner ? `{${inner}}` : "") || "value";
}

function format(v: number, unit: string): string {
  if (unit === "bytes") {
    const units = ["B", "KB", "MB", "GB", "TB"];
    let i = 0;
    while (Math.abs(v) >= 1024 && i < units.length - 1) {
      v /= 1024;
      i++;
    }
    return `${v.toPrecision(3)} ${units[i]}`;
  }
  if (unit === "percentunit") return `${(v * 100).toPrecision(3)} %`;
  if (unit === "s") return v < 1 ? `${(v * 1000).toPrecision(3)} ms` : `${v.toPrecision(3)} s`;
  return Math.abs(v) >= 1000 ? v.toLocaleString() : String(Number(v.toPrecision(4)));
}
