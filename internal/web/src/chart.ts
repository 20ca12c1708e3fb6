// Charts of Prometheus range answers: <div data-part="chart" data-query="..."
// data-minutes="60" data-unit="s" data-limit="0.5">. The query goes to the
// platform's own Prometheus API with the session of the page.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

interface Series {
  metric: Record<string, string>;
  values: [number, string][];
}

const palette = ["#0b8f97", "#c25b1f", "#5a62c8", "#2e9a55", "#b0407f", "#8a7a16", "#3a7ab8", "#8b4bb0"];

export function start(element: HTMLElement): void {
  void draw(element);
  if (element.dataset.every) setInterval(() => void draw(element), Number(element.dataset.every));
}

const charts = new WeakMap<HTMLElement, uPlot>();

async function draw(element: HTMLElement): Promise<void> {
  const minutes = Number(element.dataset.minutes ?? "60");
  const end = Math.floor(Date.now() / 1000);
  const begin = end - minutes * 60;
  const step = Math.max(5, Math.ceil((minutes * 60) / 240));
  const body = new URLSearchParams({ query: element.dataset.query ?? "", start: String(begin), end: String(end), step: String(step) });
  let series: Series[];
  try {
    const response = await fetch("/prometheus/api/v1/query_range", { method: "POST", body });
    const answer = await response.json();
    if (answer.status !== "success") throw new Error(answer.error ?? response.statusText);
    series = answer.data.result as Series[];
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
  const columns = series.slice(0, 40).map((one) => {
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
    axes: [axis, { ...axis, size: 64, values: (_u: uPlot, splits: number[]) => splits.map((v) => format(v, unit)) }],
    series: [
      {},
      ...series.slice(0, 40).map((one, i) => ({ label: name(one.metric), stroke: palette[i % palette.length], width: 1.5, value: (_u: uPlot, v: number | null) => (v === null ? "–" : format(v, unit)) })),
      ...(limit === undefined ? [] : [{ label: "limit", stroke: style.getPropertyValue("--bad"), dash: [6, 4], width: 1 }]),
    ],
  };
  charts.set(element, new uPlot(options, data, element));
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
