/**
 * Raster draws the cells of nodes into memory, pixel by pixel: 50,000 squares
 * take a few milliseconds with or without a graphics card, and one node that has
 * changed is drawn alone.
 */
import type { Cells } from "./cells";
import type { Layout } from "./layout";
import { type Model, NodeFlag, State, states, well } from "./model";
import type { Palette } from "./protocol";

/** View is where the layout is on the canvas: pixels = origin + cells × scale. */
export interface View {
  scale: number;
  x: number;
  y: number;
}

const native = (hex: string): number => {
  const v = parseInt(hex.slice(1, 7), 16);
  return ((0xff << 24) | ((v & 0xff) << 16) | (v & 0xff00) | (v >> 16)) >>> 0; // little-endian ABGR
};

const mixed = (a: string, b: string, part: number): string => {
  const x = parseInt(a.slice(1, 7), 16), y = parseInt(b.slice(1, 7), 16);
  let out = 0;
  for (const s of [16, 8, 0]) out |= Math.round(((x >> s) & 255) * (1 - part) + ((y >> s) & 255) * part) << s;
  return "#" + out.toString(16).padStart(6, "0");
};

/** fonts has the family in which the canvases write; another name, and not another face, makes a canvas look again. */
export const fonts = { family: "system-ui, sans-serif" };

export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** The places of pods in a cell. */
export interface Grid {
  box: Box; // the cell
  x: number; // of the first place
  y: number;
  step: number;
  size: number;
  head: number; // height of the line with the name, 0 without one
}

export class Raster {
  private image = new ImageData(1, 1);
  private px = new Uint32Array(this.image.data.buffer);
  private full = new Uint32Array(states);
  private dim = new Uint32Array(states);
  private paper = 0;
  private cell = 0;
  private line = 0;
  private alarm = 0;
  private warn = 0;
  private colors!: Palette;
  /** found has a 1 for each pod that is looked for, by id; null where none is. */
  found: Uint8Array | null = null;

  constructor(private ctx: OffscreenCanvasRenderingContext2D) {}

  palette(p: Palette) {
    this.colors = p;
    p.states.forEach((c, i) => {
      this.full[i] = native(c);
      this.dim[i] = native(mixed(c, p.cell, 0.8));
    });
    this.paper = native(p.paper);
    this.cell = native(p.cell);
    this.line = native(p.line);
    this.alarm = native(p.alarm);
    this.warn = native(p.states[State.Pending]);
  }

  resize(width: number, height: number) {
    this.ctx.canvas.width = Math.max(1, width);
    this.ctx.canvas.height = Math.max(1, height);
    this.image = new ImageData(Math.max(1, width), Math.max(1, height));
    this.px = new Uint32Array(this.image.data.buffer);
  }

  /** grid returns where a node's pods are; null where the node has no place. */
  static grid(l: Layout, v: View, node: number, ratio: number): Grid | null {
    const cx = l.xs[node];
    if (!(cx >= 0)) return null;
    const cy = l.ys[node];
    const space = v.scale < 5 ? (v.scale < 3 ? 0 : 1) : Math.max(1, Math.round(v.scale * 0.07));
    const x = Math.round(v.x + cx * v.scale), y = Math.round(v.y + cy * v.scale);
    const w = Math.max(1, Math.round(v.x + (cx + 1) * v.scale) - x - space), h = Math.max(1, Math.round(v.y + (cy + 1) * v.scale) - y - space);
    const head = l.named && v.scale >= 60 * ratio ? Math.round(16 * ratio) : 0;
    // Cells differ by a pixel; the squares in them do not.
    const least = Math.max(1, Math.floor(v.scale) - space);
    const pad = least >= 24 ? Math.max(1, Math.round(least * 0.05)) : least >= 10 ? 1 : 0;
    const step = Math.floor((least - 2 * pad + 1 - head) / l.side);
    const size = step - (step >= 24 ? Math.round(step / 12) : step >= 8 ? 2 : step >= 3 ? 1 : 0);
    return { box: { x, y, w, h }, x: x + pad, y: y + pad + head, step, size, head };
  }

  /** all draws the whole picture. */
  all(m: Model, cells: Cells, l: Layout, v: View, ratio: number) {
    const { width, height } = this.image;
    this.px.fill(this.paper);
    const texts: [number, Grid][] = [];
    for (let id = 1; id < l.xs.length; id++) {
      const g = Raster.grid(l, v, id, ratio);
      if (!g || g.box.x > width || g.box.y > height || g.box.x + g.box.w < 0 || g.box.y + g.box.h < 0) continue;
      this.node(m, cells, l, id, g);
      if (v.scale >= 60 * ratio) texts.push([id, g]);
    }
    this.ctx.putImageData(this.image, 0, 0);
    this.titles(l, v, ratio);
    for (const [id, g] of texts) this.text(m, cells, l, id, g, ratio);
  }

  /** some draws the nodes of a set again. */
  some(m: Model, cells: Cells, l: Layout, v: View, ratio: number, nodes: Set<number>) {
    const { width, height } = this.image;
    for (const id of nodes) {
      const g = id < l.xs.length ? Raster.grid(l, v, id, ratio) : null;
      if (!g || g.box.x > width || g.box.y > height || g.box.x + g.box.w < 0 || g.box.y + g.box.h < 0) continue;
      this.node(m, cells, l, id, g);
      const x = Math.max(0, g.box.x), y = Math.max(0, g.box.y);
      this.ctx.putImageData(this.image, 0, 0, x, y, Math.min(width, g.box.x + g.box.w) - x, Math.min(height, g.box.y + g.box.h) - y);
      if (v.scale >= 60 * ratio) this.text(m, cells, l, id, g, ratio);
    }
  }

  private node(m: Model, cells: Cells, l: Layout, id: number, g: Grid) {
    const { box, step, size } = g, flags = cells.flags(id), slots = cells.slots[id];
    if (box.w < 3 || step < 1) {
      this.summary(m, cells, id, box);
      return;
    }
    this.rect(box.x, box.y, box.w, box.h, this.cell);
    if (flags & NodeFlag.Cordoned) this.hatch(box, this.line);
    if (!well(flags)) {
      this.hatch(box, this.alarm, 6);
      this.frame(box, this.alarm);
    } else if (flags & NodeFlag.Pressure) this.frame(box, this.warn);
    const places = l.side * l.side, n = Math.min(slots.length, places);
    for (let i = 0; i < n; i++) {
      const pod = slots[i];
      if (pod >= 0) this.pod(m, pod, g.x + (i % l.side) * step, g.y + Math.floor(i / l.side) * step, size);
    }
  }

  private pod(m: Model, id: number, x: number, y: number, s: number) {
    const state = m.podState[id], color = (this.found && !this.found[id] ? this.dim : this.full)[state];
    this.rect(x, y, s, s, color);
    if (s < 5) return;
    // The states differ in form, too.
    const large = s >= 40, edge = large ? 3 : Math.max(1, Math.round(s / 8)); // large ones have their names in them
    if (large && (state === State.Failing || state === State.Ending)) return;
    switch (state) {
      case State.Starting:
      case State.Pending:
      case State.Unschedulable:
        this.rect(x + edge, y + edge, s - 2 * edge, s - 2 * edge, this.cell);
        if (state === State.Starting && !large) this.rect(x + 2 * edge, y + 2 * edge, s - 4 * edge, s - 4 * edge, color);
        if (state === State.Unschedulable) this.rect(x, large ? y + s - 3 * edge : y + (s >> 1) - (edge >> 1), s, large ? 3 * edge : edge, color);
        break;
      case State.Failing:
        this.rect(x + (s >> 1) - edge, y + edge, Math.max(1, edge * 2 - 1 + (s & 1 ? 0 : 1)), s - 2 * edge, this.cell);
        break;
      case State.Ending:
        this.rect(x + edge, y + edge, s - 2 * edge, (s >> 1) - edge, this.cell);
        break;
      case State.Done:
        this.rect(x + edge, y + edge, s - 2 * edge, s - 2 * edge, this.cell);
        if (!large) this.rect(x + (s >> 1) - edge, y + (s >> 1) - edge, 2 * edge, 2 * edge, color);
        break;
    }
  }

  /** summary fills a cell that is too small for squares with stripes by state. */
  private summary(m: Model, cells: Cells, id: number, box: Box) {
    const counts = m.podsOf(cells.slots[id]);
    let n = 0;
    for (const c of counts) n += c;
    this.rect(box.x, box.y, box.w, box.h, well(cells.flags(id)) ? this.cell : this.alarm);
    if (n === 0) return;
    let y = box.y;
    for (const s of order) {
      if (!counts[s]) continue;
      const h = Math.min(box.y + box.h - y, Math.max(1, Math.round((counts[s] / n) * box.h)));
      if (h <= 0) return;
      this.rect(box.x, y, box.w, h, (this.found ? this.dim : this.full)[s]);
      y += h;
    }
  }

  private rect(x: number, y: number, w: number, h: number, color: number) {
    const { width, height } = this.image;
    const x0 = Math.max(0, x), x1 = Math.min(width, x + w), y0 = Math.max(0, y), y1 = Math.min(height, y + h);
    if (x1 <= x0) return;
    for (let r = y0; r < y1; r++) this.px.fill(color, r * width + x0, r * width + x1);
  }

  private frame(b: Box, color: number) {
    this.rect(b.x, b.y, b.w, 1, color);
    this.rect(b.x, b.y + b.h - 1, b.w, 1, color);
    this.rect(b.x, b.y, 1, b.h, color);
    this.rect(b.x + b.w - 1, b.y, 1, b.h, color);
  }

  private hatch(b: Box, color: number, every = 5) {
    const { width, height } = this.image;
    for (let y = Math.max(0, b.y); y < Math.min(height, b.y + b.h); y++) {
      for (let x = Math.max(0, b.x) + ((every - ((Math.max(0, b.x) + y) % every)) % every); x < Math.min(width, b.x + b.w); x += every) this.px[y * width + x] = color;
    }
  }

  /** text writes a node's name above its pods, and the pods' where they are large enough. */
  private text(m: Model, cells: Cells, l: Layout, id: number, g: Grid, ratio: number) {
    const c = this.ctx, size = 11 * ratio;
    c.font = `500 ${size}px ${fonts.family}`;
    c.textBaseline = "middle";
    c.fillStyle = well(cells.flags(id)) ? this.colors.ink : this.colors.alarm;
    if (g.head) c.fillText(cut(c, cells.name(id), g.box.w - 10 * ratio), g.x + 1, g.box.y + g.head * 0.62);
    if (g.size < 56 * ratio) return;
    c.font = `400 ${10.5 * ratio}px ${fonts.family}`;
    const slots = cells.slots[id];
    for (let i = 0; i < Math.min(slots.length, l.side * l.side); i++) {
      const pod = slots[i];
      if (pod < 0) continue;
      const x = g.x + (i % l.side) * g.step, y = g.y + Math.floor(i / l.side) * g.step;
      const solid = solids.has(m.podState[pod]) && !(this.found && !this.found[pod]);
      c.fillStyle = solid ? this.colors.paper : this.colors.ink;
      const lines = fold(c, m.podNames[pod], g.size - 12 * ratio, Math.max(1, Math.floor((g.size - 12 * ratio) / (14 * ratio))));
      lines.forEach((t, k) => c.fillText(t, x + 6 * ratio, y + (12 + 14 * k) * ratio));
    }
  }

  private titles(l: Layout, v: View, ratio: number) {
    const c = this.ctx;
    c.textBaseline = "alphabetic";
    for (const g of l.groups) {
      const size = Math.min(13 * ratio, v.scale * 0.9);
      if (g.name === "" || size < 9 * ratio) continue;
      const x = v.x + g.x * v.scale, y = v.y + g.y * v.scale - Math.max(4 * ratio, Math.min(8 * ratio, v.scale * 0.2));
      c.font = `500 ${size}px ${fonts.family}`;
      c.fillStyle = this.colors.ink;
      const room = (g.columns + 0.5) * v.scale;
      const name = cut(c, c.measureText(g.name).width <= room ? g.name : g.name.slice(g.name.lastIndexOf("/") + 1), room);
      c.fillText(name, x, y);
      const w = c.measureText(name + " ").width;
      c.fillStyle = this.colors.faint;
      c.font = `400 ${size}px ${fonts.family}`;
      if (c.measureText(g.size()).width <= g.columns * v.scale - w) c.fillText(g.size(), x + w, y);
    }
  }
}

/** solids are the states whose squares are filled when they are large. */
const solids = new Set<number>([State.Ready, State.Failing, State.Ending, State.Unknown]);

/** order is that of the stripes: what calls for attention first. */
const order = [State.Failing, State.Unschedulable, State.Unknown, State.Pending, State.Starting, State.Ending, State.Done, State.Ready];

/** cut shortens a text in its middle to a width. */
export function cut(c: OffscreenCanvasRenderingContext2D, text: string, width: number): string {
  const w = c.measureText(text).width;
  if (w <= width) return text;
  const n = Math.floor((text.length * width) / w) - 1;
  if (n < 2) return "";
  const tail = Math.ceil(n / 2);
  return text.slice(0, n - tail) + "…" + text.slice(-tail);
}

/** fold breaks a text at hyphens into lines of a width. */
function fold(c: OffscreenCanvasRenderingContext2D, text: string, width: number, most: number): string[] {
  const out: string[] = [];
  let line = "";
  for (const part of text.split(/(?<=[-.])/)) {
    if (line && c.measureText(line + part).width > width) {
      out.push(line);
      line = "";
    }
    line += part;
  }
  out.push(line);
  if (out.length > most) out.splice(most - 1, out.length, out.slice(most - 1).join(""));
  return out.map((t) => cut(c, t, width));
}
