/**
 * Flow draws the way of changes: single ones as marks that travel along the
 * lines between the stations, many as a line whose dashes move and whose width
 * tells how many they are. The number of marks is bounded.
 */
import type { Step } from "./model";
import type { Palette, Rect, Station } from "./protocol";

type Point = [number, number];

interface Mark {
  path: Point[];
  length: number;
  begin: number;
  color: string;
}

const most = 96;
/** many is from how many writes a second on those of a station are drawn as a line. */
const many = 30;
const speed = 900; // css pixels a second, at least
const longest = 700; // ms that a mark travels, at most

/** stationOf returns where the writes of an actor come from. */
export function stationOf(actor: string): Station {
  if (/^(kubelet|system:node:|simulat)/.test(actor)) return "nodes";
  if (/scheduler/.test(actor)) return "scheduler";
  if (/^(system:)?(kube-)?apiserver/.test(actor)) return "api";
  if (/controller|collector|autoscaler|provisioner|cleaner|signer|publisher|binder|^system:serviceaccount:kube-system:/.test(actor)) return "controllers";
  return "clients";
}

export class Flow {
  private marks: Mark[] = [];
  private lines: Partial<Record<Station, Point[]>> = {};
  private counts: Record<Station, number> = zero();
  rates: Record<Station, number> = zero();
  private counted = 0;
  private flashes: { id: number; begin: number }[] = [];
  still = false;

  private places: Record<Station, Rect> | null = null;

  /** place computes the lines between the stations. */
  place(s: Record<Station, Rect>, height: number) {
    this.places = s;
    const mid = (r: Rect): number => r.y + r.h / 2, cx = (r: Rect): number => r.x + r.w / 2;
    const bus = (s.store.x + s.store.w + s.controllers.x) / 2;
    const top = 7.5, bottom = height - 7.5, ax = cx(s.api);
    // Lines pass below the stations: a change that comes from above or below goes through the API server.
    const start: Point = [ax, mid(s.api)];
    const toStore: Point[] = [[s.api.x + s.api.w, mid(s.api)], [s.store.x, mid(s.store)]];
    this.lines = {
      clients: [[s.clients.x + s.clients.w, mid(s.clients)], [s.api.x, mid(s.api)], ...toStore],
      api: toStore,
      controllers: [[cx(s.controllers), s.controllers.y], [cx(s.controllers), top], [ax, top], start, ...toStore],
      scheduler: [[cx(s.scheduler), s.scheduler.y + s.scheduler.h], [cx(s.scheduler), bottom], [ax, bottom], start, ...toStore],
      nodes: [[cx(s.nodes), s.nodes.y + s.nodes.h], [cx(s.nodes), bottom], [ax, bottom], start, ...toStore],
    };
    this.out = {
      controllers: [[s.store.x + s.store.w, mid(s.store)], [bus, mid(s.store)], [bus, mid(s.controllers)], [s.controllers.x, mid(s.controllers)]],
      scheduler: [[s.store.x + s.store.w, mid(s.store)], [bus, mid(s.store)], [bus, mid(s.scheduler)], [s.scheduler.x, mid(s.scheduler)]],
      nodes: [[s.store.x + s.store.w, mid(s.store)], [s.nodes.x, mid(s.nodes)]],
    };
  }
  private out: Partial<Record<Station, Point[]>> = {};

  /** add takes a write: id is the cell of what was written, 0 for none, cell where that is on the canvas; bound: it is of a node or on one. */
  add(step: Step, id: number, cell: Point | null, bound: boolean, colors: Palette, now: number) {
    const from = stationOf(step[1]);
    this.counts[from]++;
    if (!this.places || this.still) return;
    if (id && this.flashes.length < 128) this.flashes.push({ id, begin: now });
    if (this.rates[from] > many || this.marks.length >= most) return;
    const [verb] = step[2].split("/"), color = verb === "delete" ? colors.alarm : verb === "create" ? colors.accent : colors.ink;
    let path = this.lines[from] ?? [];
    const nodes = this.places.nodes;
    if (from === "nodes" && cell) path = [cell, [nodes.x + nodes.w / 2, nodes.y + nodes.h], ...path];
    // After the store, those who watch hear of it.
    const resource = step[3].split(".")[0];
    const next: Station = from === "scheduler" || (resource === "pods" && from === "controllers" && bound) ? "nodes" : resource === "pods" && verb === "create" ? "scheduler" : resource === "nodes" ? "scheduler" : "controllers";
    if (from !== "nodes") path = [...path, ...(this.out[next] ?? [])];
    if (next === "nodes" && cell) path = [...path, cell];
    let length = 0;
    for (let i = 1; i < path.length; i++) length += Math.hypot(path[i][0] - path[i - 1][0], path[i][1] - path[i - 1][1]);
    if (length > 0) this.marks.push({ path, length, begin: now, color });
  }

  /** count updates the rates, once a second; it reports whether they are other ones. */
  count(now: number): boolean {
    const passed = now - this.counted;
    if (passed < 1000) return false;
    this.counted = now;
    let changed = false;
    for (const k in this.counts) {
      const s = k as Station, rate = (this.counts[s] * 1000) / passed;
      const next = passed > 5000 ? 0 : rate > this.rates[s] ? rate : this.rates[s] * 0.4 + rate * 0.6;
      const shown = next < 0.2 ? 0 : next;
      changed ||= shown !== this.rates[s];
      this.rates[s] = shown;
      this.counts[s] = 0;
    }
    return changed;
  }

  /** moving reports whether the next frame will differ. */
  get moving(): boolean {
    return this.marks.length > 0 || this.flashes.length > 0 || (!this.still && Object.values(this.rates).some((r) => r > many));
  }

  /** draw draws lines, marks and flashes in css pixels; box returns where a cell is. */
  draw(c: OffscreenCanvasRenderingContext2D, colors: Palette, now: number, box: (id: number) => Rect | null) {
    if (!this.places) return;
    c.lineJoin = "round";
    c.lineWidth = 1;
    c.strokeStyle = colors.line;
    for (const l of [...Object.values(this.lines), ...Object.values(this.out)]) trace(c, l);
    for (const k in this.lines) {
      const s = k as Station, rate = this.rates[s];
      if (rate <= many) continue;
      c.strokeStyle = s === "clients" ? colors.accent : colors.ink;
      c.lineWidth = Math.min(5, 1 + Math.log10(rate / 10));
      c.setLineDash([6, 6]);
      c.lineDashOffset = this.still ? 0 : -((now / 14) % 12);
      trace(c, this.lines[s]!);
      const next: Station = s === "scheduler" ? "nodes" : s === "controllers" ? "scheduler" : "controllers";
      if (this.out[next] && s !== "nodes") trace(c, this.out[next]!);
      c.setLineDash([]);
    }
    c.lineWidth = 1.5;
    this.marks = this.marks.filter((m) => {
      const total = Math.min(longest, (m.length / speed) * 1000), part = (now - m.begin) / total;
      if (part >= 1) return false;
      const [x, y] = along(m.path, m.length * part);
      c.fillStyle = m.color;
      c.fillRect(x - 2.5, y - 2.5, 5, 5);
      return true;
    });
    this.flashes = this.flashes.filter((f) => {
      const part = (now - f.begin) / 600;
      if (part >= 1) return false;
      const b = box(f.id);
      if (b) {
        c.strokeStyle = colors.accent;
        c.globalAlpha = 1 - part;
        c.lineWidth = 1.5;
        c.strokeRect(b.x - 1, b.y - 1, b.w + 2, b.h + 2);
        c.globalAlpha = 1;
      }
      return true;
    });
  }

  clear() {
    this.marks = [];
    this.flashes = [];
    this.counts = zero();
    this.rates = zero();
  }
}

function zero(): Record<Station, number> {
  return { clients: 0, api: 0, store: 0, controllers: 0, scheduler: 0, nodes: 0 };
}

function trace(c: OffscreenCanvasRenderingContext2D, l: Point[]) {
  c.beginPath();
  l.forEach(([x, y], i) => (i ? c.lineTo(Math.round(x) + 0.5, Math.round(y) + 0.5) : c.moveTo(Math.round(x) + 0.5, Math.round(y) + 0.5)));
  c.stroke();
}

function along(path: Point[], at: number): Point {
  for (let i = 1; i < path.length; i++) {
    const [ax, ay] = path[i - 1], [bx, by] = path[i], d = Math.hypot(bx - ax, by - ay);
    if (at <= d && d > 0) return [ax + ((bx - ax) * at) / d, ay + ((by - ay) * at) / d];
    at -= d;
  }
  return path[path.length - 1];
}
