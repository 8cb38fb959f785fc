/** chart draws lines over time; it is loaded with the first view that has one. */
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { time } from "./words";

export interface Line {
  label: string;
  /** color is the name of a colour of the style sheet. */
  color: string;
  dash?: number[];
}

export interface Drawing {
  data(times: number[], lines: (number | null)[][]): void;
  /** point marks the sample of that number, -1 none. */
  point(index: number): void;
  destroy(): void;
}

const height = 180;

/** draw makes a chart in a host; pointed is called with the number of the sample that is pointed at, -1 for none. */
export function draw(host: HTMLElement, lines: Line[], unit: (v: number) => string, pointed: (index: number) => void): Drawing {
  const s = getComputedStyle(document.documentElement), v = (n: string) => s.getPropertyValue(n).trim();
  const font = '12px "IBM Plex Sans", system-ui, sans-serif';
  const axis: uPlot.Axis = { stroke: v("--faint"), font, grid: { stroke: v("--hair"), width: 1 }, ticks: { show: false }, gap: 6 };
  const empty = [[], ...lines.map(() => [])] as unknown as uPlot.AlignedData;
  const u = new uPlot({
    width: Math.max(120, host.clientWidth), height, legend: { show: false }, padding: [8, 8, 0, 0],
    cursor: { drag: { setScale: false, x: false, y: false }, y: false, points: { size: 7 } },
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.12 : 1] } },
    axes: [
      { ...axis, size: 26, space: 90, values: (_, ticks) => ticks.map((t) => time(t * 1000)) },
      { ...axis, size: 68, space: 34, values: (_, ticks) => ticks.map(unit) },
    ],
    series: [{}, ...lines.map((l) => ({ label: l.label, stroke: v(l.color), width: 1.5, dash: l.dash, points: { show: false } }))],
    hooks: { setCursor: [(u) => pointed(u.cursor.idx ?? -1)] },
  }, empty, host);
  const observer = new ResizeObserver(() => host.clientWidth > 0 && u.setSize({ width: host.clientWidth, height }));
  observer.observe(host);
  return {
    data: (times, values) => u.setData([times, ...lines.map((_, i) => values[i] ?? times.map(() => null))] as uPlot.AlignedData),
    point: (i) => u.setCursor(i < 0 ? { left: -10, top: -10 } : { left: u.valToPos(u.data[0][i], "x"), top: 0 }),
    destroy: () => {
      observer.disconnect();
      u.destroy();
    },
  };
}
