/**
 * The worker has the stream, the model and both canvases: the page's own thread
 * neither parses nor draws.
 */
import { type Cells, cellsOf, type Grouping, labelOf } from "./cells";
import { Flow } from "./flow";
import { lay, type Layout } from "./layout";
import { Lines } from "./lines";
import { type Hello, Model, NodeFlag, PodFlag, stateNames, type Stats, type Step, well } from "./model";
import type { FromWorker, Item, Palette, Rect, Row, ToWorker, Tree } from "./protocol";
import { fonts, Raster, type View } from "./raster";
import { type Requests, requests } from "../series";

import regular from "@fontsource/ibm-plex-sans/files/ibm-plex-sans-latin-400-normal.woff2?url";
import medium from "@fontsource/ibm-plex-sans/files/ibm-plex-sans-latin-500-normal.woff2?url";

// A worker has fonts of its own.
void Promise.all(
  ([[regular, "400"], [medium, "500"]] as const).map(([url, weight]) => {
    const face = new FontFace("IBM Plex Sans", `url("${new URL(url, self.location.href).href}")`, { weight });
    (self as unknown as { fonts?: FontFaceSet }).fonts?.add(face);
    return face.load();
  }),
).then(() => {
  fonts.family = '"IBM Plex Sans", system-ui, sans-serif';
  redraw = reline = true;
  wake();
}, () => {});

const tell = (m: FromWorker) => self.postMessage(m);

let model = new Model();
let by: Grouping = "zone", cells: Cells = cellsOf(model, by);
let layout: Layout | null = null;
let raster: Raster | null = null;
let over: OffscreenCanvasRenderingContext2D | null = null;
const flow = new Flow();
let palette: Palette | null = null;
let base = "";

let width = 0, height = 0, top = 0, ratio = 1; // css pixels; top is the height of the stations
const view: View = { scale: 1, x: 0, y: 0 };
let fitted = true; // the view follows the layout until the user moves it
let shown = true;
let redraw = true, reline = true, laid = -Infinity, drawnAt = -Infinity;

let hovered: Item | null = null, hoverAt: [number, number] | null = null;
let selected: What | null = null;
let find = "";

let steps: Step[] = [], dropped = 0, stats: Stats = {};
const actors = new Map<string, number>();
let ready = false, past = false;
/** waiting are the server's times of writes whose drawing is still to come; skew is the server's clock less ours. */
let waiting: number[] = [], skew = 0, lag = 0, drawn = 0;
let generation = 0;
let first = 0;
let news = true;

// ---- The stream.

async function open(at: string, namespace: string) {
  opened = [at, namespace];
  const mine = ++generation;
  abort?.abort();
  past = at !== "";
  for (let attempt = 0; mine === generation; attempt++) {
    abort = new AbortController();
    tell({ type: "status", state: attempt ? "connecting" : "loading", message: "" });
    let message = "the connection to the server was lost";
    bye = "";
    try {
      const q = new URLSearchParams();
      if (at) q.set("at", at);
      if (namespace) q.set("namespace", namespace);
      if (labelOf(by)) q.set("nodeLabel", labelOf(by));
      const res = await fetch(`${base}/dash/stream${q.size ? "?" + q : ""}`, { credentials: "same-origin", signal: abort.signal });
      if (!res.ok || !res.body) {
        message = await refusal(res);
        if (res.status >= 400 && res.status < 500 && res.status !== 429) {
          if (mine === generation) tell({ type: "status", state: "failed", message });
          return;
        }
      } else {
        const whole = await read(res.body, mine);
        if (mine !== generation) return;
        if (at && whole) return;
        attempt = 0;
      }
    } catch (e) {
      if (mine !== generation) return;
      message = e instanceof Error ? e.message : String(e);
    }
    if (bye) message = `the server has ended the stream (${bye})`;
    tell({ type: "status", state: "failed", message });
    await new Promise((r) => setTimeout(r, Math.min(10_000, 500 * 2 ** attempt)));
  }
}
let abort: AbortController | null = null;
let bye = "";
let opened: [string, string] | null = null;
let asleep = 0;

/** refusal is what the server says in an answer that is an error. */
async function refusal(res: Response): Promise<string> {
  const text = await res.text();
  try {
    return JSON.parse(text).message || text;
  } catch {
    return text || `${res.status} ${res.statusText}`;
  }
}

/** read takes a stream to its end, and reports whether it has been ready. */
async function read(body: ReadableStream<Uint8Array>, mine: number): Promise<boolean> {
  const reader = body.getReader(), text = new TextDecoder(), lines = new Lines();
  // The first picture is drawn as it comes; one that replaces another, when it is whole.
  let next = first ? new Model() : model;
  if (!first && model.podCount) {
    next = model = new Model();
    cells = cellsOf(model, by);
  }
  let whole = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return whole;
    if (mine !== generation) {
      reader.cancel().catch(() => {});
      return whole;
    }
    for (const r of lines.push(text.decode(value, { stream: true }))) {
      if (next.apply(r)) continue;
      switch (r[0]) {
        case "hello": {
          const hello = r[1] as Hello;
          // Clocks that differ by less than the hello can have been on its way are taken for equal.
          skew = hello.now - Date.now();
          if (Math.abs(skew) < 2000) skew = 0;
          tell({ type: "hello", hello });
          break;
        }
        case "ready":
          whole = ready = true;
          drawnAt = -Infinity;
          if (next !== model) {
            const was = selected && name(selected);
            model = next;
            cells = cellsOf(model, by);
            selected = was ? reselect(was) : null;
            layout = null;
            hovered = null;
            flow.clear();
            steps = [];
            if (find) seek();
          }
          laid = -Infinity;
          tell({ type: "status", state: past ? "past" : "live", message: "" });
          break;
        case "steps":
          for (const s of r[1] as Step[]) step(s);
          break;
        case "dropped":
          dropped += r[1] as number;
          break;
        case "stats":
          stats = r[1] as Stats;
          break;
        case "bye":
          bye = String(r[1]);
          break;
      }
    }
    news = true;
    wake();
  }
}

function step(s: Step) {
  steps.push(s);
  if (steps.length > 400) steps = steps.slice(-200);
  actors.set(s[1], (actors.get(s[1]) ?? 0) + 1);
  const resource = s[3];
  let cell = 0, bound = false;
  if (resource === "pods") {
    const pod = model.podNamed(s[4], s[5]);
    if (pod >= 0) cell = cells.of(pod);
    bound = pod >= 0 && model.podNode[pod] > 0;
    if (waiting.length < 1000) waiting.push(s[0] - skew);
  } else if (resource === "nodes" && cells.kind === "node") {
    cell = Math.max(0, model.nodeNamed(s[5]));
    bound = cell > 0;
  }
  if (!palette || !shown) return;
  const b = cell ? boxOf(cell) : null;
  flow.add(s, cell, b && inside(b) ? [b.x + b.w / 2, b.y + b.h / 2] : null, bound, palette, performance.now());
  reline = true;
}

const inside = (b: Rect) => b.x < width && b.y < height && b.x + b.w > 0 && b.y + b.h > top;

// ---- Drawing.

let queued = false;
function wake() {
  if (queued || !raster) return;
  queued = true;
  if (self.requestAnimationFrame) self.requestAnimationFrame(frame);
  else setTimeout(() => frame(performance.now()), 16);
}

function frame(_: number) {
  queued = false;
  const now = performance.now();
  if (!raster || !over || !palette || width === 0) return;
  if (!shown) {
    model.dirty.clear();
    cells.dirty.clear();
    redraw = true;
    waiting = [];
    return;
  }
  // What comes in goes before its drawing, as long as the picture is not whole.
  if (!ready && now - drawnAt < 200) {
    setTimeout(wake, 200 - (now - drawnAt));
    return;
  }
  drawnAt = now;
  if (cells.moved || !layout || (layout.side < 16 && cells.widest > layout.side ** 2)) {
    // While a picture comes in, it is laid out at most four times a second.
    if (ready || now - laid > 250) {
      layout = lay(cells, width / Math.max(1, height - top - 24));
      cells.moved = false;
      laid = now;
      if (fitted) fit();
      redraw = true;
    }
  }
  if (layout) {
    if (redraw || cells.dirty.size > 1500) raster.all(model, cells, layout, device(), ratio);
    else if (cells.dirty.size) raster.some(model, cells, layout, device(), ratio, cells.dirty);
    if (redraw || cells.dirty.size) {
      reline = true;
      if (hoverAt) hover();
    }
    model.dirty.clear();
    cells.dirty.clear();
    redraw = false;
    if (ready && !first) {
      first = now;
      tell({ type: "first", ms: performance.timeOrigin + now, pods: model.podCount, nodes: model.nodeCount });
    }
  }
  if (waiting.length) {
    const at = Date.now();
    lag = Math.max(...waiting.map((w) => at - w));
    drawn += waiting.length;
    waiting = [];
    news = true;
  }
  if (reline || flow.moving) line(now);
  if (flow.moving || cells.moved) wake();
}

/** device is the view in the pixels of the base canvas. */
const device = (): View => ({ scale: view.scale * ratio, x: view.x * ratio, y: (view.y - top) * ratio });

/** line draws what is above the cells: lines, marks, what is hovered and selected. */
function line(now: number) {
  const c = over!, p = palette!;
  reline = false;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  if (layout) tray(c, p);
  c.save();
  c.beginPath();
  c.rect(0, 0, width, height);
  c.clip();
  for (const [what, color, w] of [
    [hovered && idOf(hovered), p.ink, 1],
    [selected, p.accent, 2],
  ] as const) {
    const b = what && rectOf(what);
    if (!b || b.y + b.h < top) continue;
    c.strokeStyle = color;
    c.lineWidth = w;
    c.strokeRect(b.x - 1, b.y - 1, b.w + 2, b.h + 2);
  }
  flow.draw(c, p, now, (cell) => {
    const b = boxOf(cell);
    return b && b.y >= top ? b : null;
  });
  c.restore();
}

/** tray draws the pods that are on no node, as many as have room in a line. */
function tray(c: OffscreenCanvasRenderingContext2D, p: Palette) {
  const slots = model.slots[0];
  if (!slots.length) return;
  const count = slots.length - model.free.length;
  c.fillStyle = p.paper;
  c.fillRect(0, top, width, 22);
  c.fillStyle = p.ink;
  c.font = `500 11px ${fonts.family}`;
  c.textBaseline = "middle";
  const text = `${count.toLocaleString("en")} on no node`;
  c.fillText(text, 12, top + 12);
  let x = 12 + c.measureText(text).width + 10;
  for (let i = slots.length - 1; i >= 0 && x < width - 12; i--) {
    if (slots[i] < 0) continue;
    c.fillStyle = p.states[model.podState[slots[i]]];
    c.fillRect(x, top + 8, 7, 7);
    x += 9;
  }
}

const trayHeight = 24;

function fit() {
  fitted = true;
  if (!layout || !width) return;
  const side = 16, w = width - 2 * side, h = height - top - trayHeight - side;
  const largest = 300;
  view.scale = Math.max(0.5, Math.min(w / layout.width, h / layout.height, largest));
  view.x = Math.max(side, (width - layout.width * view.scale) / 2);
  view.y = top + trayHeight + (layout.height * view.scale < h ? Math.min((h - layout.height * view.scale) / 2, 32) : 0);
  redraw = true;
}

const least = () => (layout ? Math.min(4, Math.min(width / layout.width, (height - top) / layout.height) * 0.6) : 1);

function zoom(by: number, x: number, y: number) {
  if (!layout) return;
  const scale = Math.max(least(), Math.min(view.scale * by, layout.side * 120));
  const k = scale / view.scale;
  view.x = x - (x - view.x) * k;
  view.y = y - (y - view.y) * k;
  view.scale = scale;
  moved();
}

function moved() {
  fitted = false;
  if (!layout) return;
  // Some of the picture stays in sight.
  const w = layout.width * view.scale, h = layout.height * view.scale, keep = 60;
  view.x = Math.min(width - keep, Math.max(keep - w, view.x));
  view.y = Math.min(height - keep, Math.max(top + keep - h, view.y));
  redraw = true;
  wake();
}

// ---- What is where. Rectangles are in css pixels of the whole canvas.

function boxOf(cell: number): Rect | null {
  const g = layout && cell < layout.xs.length ? Raster.grid(layout, device(), cell, ratio) : null;
  return g && { x: g.box.x / ratio, y: g.box.y / ratio + top, w: g.box.w / ratio, h: g.box.h / ratio };
}

/** What is one of the cells, or a pod, by its number. */
interface What {
  kind: Item["kind"];
  id: number;
}

function rectOf(what: What): Rect | null {
  if (what.kind === "node") return cells.kind === "node" && model.nodeThere[what.id] ? boxOf(what.id) : null;
  if (what.kind === "group") return cells.kind === "group" && cells.slots[what.id]?.length ? boxOf(what.id) : null;
  if (!model.podThere[what.id]) return null;
  const cell = cells.of(what.id), slot = cells.place(what.id);
  const g = cell && layout && cell < layout.xs.length ? Raster.grid(layout, device(), cell, ratio) : null;
  if (!g || g.step < 2 || slot >= layout!.side ** 2) return cell ? boxOf(cell) : null;
  return { x: (g.x + (slot % layout!.side) * g.step) / ratio, y: (g.y + Math.floor(slot / layout!.side) * g.step) / ratio + top, w: g.size / ratio, h: g.size / ratio };
}

function at(x: number, y: number): What | null {
  if (!layout || y < top) return null;
  const cx = (x - view.x) / view.scale, cy = (y - view.y) / view.scale;
  for (const g of layout.groups) {
    const col = Math.floor(cx - g.x), row = Math.floor(cy - g.y);
    if (col < 0 || col >= g.columns || row < 0 || row >= g.rows) continue;
    const cell = g.cells[row * g.columns + col];
    if (cell === undefined) return null;
    const grid = Raster.grid(layout, device(), cell, ratio)!;
    if (grid.step >= 4) {
      const px = Math.floor((x * ratio - grid.x) / grid.step), py = Math.floor(((y - top) * ratio - grid.y) / grid.step);
      if (px >= 0 && px < layout.side && py >= 0 && py < layout.side) {
        const pod = cells.slots[cell][py * layout.side + px];
        if (pod >= 0) return { kind: "pod", id: pod };
      }
    }
    return { kind: cells.kind, id: cell };
  }
  return null;
}

function item(what: What | null): Item | null {
  const r = what && rectOf(what);
  if (!what) return null;
  const { x, y } = r ? { x: r.x + r.w / 2, y: r.y } : { x: 0, y: 0 };
  const id = what.id;
  const stated = (counts: Int32Array) => [...counts].flatMap((n, s) => (s && n ? [`${n} ${stateNames[s].toLowerCase()}`] : []));
  if (what.kind === "group") {
    const g = groupOf(id), counts = model.podsOf(g?.cells.flatMap((c) => cells.slots[c]));
    return { kind: "group", namespace: "", name: cells.name(id), where: "", state: g?.size() ?? "", details: [`${counts[0]} ready`, ...stated(counts)], x, y };
  }
  if (what.kind === "node") {
    const f = model.nodeFlags[id], size = model.nodeSizes[id], counts = model.podsOf(model.slots[id]);
    const pods = counts.reduce((a, b) => a + b, 0);
    const state = [f & NodeFlag.Named ? "You may not get it" : f & NodeFlag.Ready ? "Ready" : "Not ready", f & NodeFlag.Cordoned && "cordoned", f & NodeFlag.Pressure && "under pressure", f & NodeFlag.Simulated && "simulated"].filter(Boolean).join(", ");
    const details = size[2] ? [`${pods} of ${size[2]} pods`, `${size[0] / 1000} CPUs, ${gib(size[1])}`] : [`${pods} pods`];
    return { kind: "node", namespace: "", name: model.nodeNames[id], where: groupName(id), state, details: [...details, ...stated(counts)], x, y };
  }
  const owner = model.podOwner[id], f = model.podFlags[id], details: string[] = [];
  if (f & PodFlag.Waiting) details.push("a container waits because of an error");
  if (model.podRestarts[id]) details.push(`${model.podRestarts[id]} restarts`);
  return {
    kind: "pod", namespace: model.podNamespaces[id], name: model.podNames[id], where: model.podNode[id] ? model.nodeNames[model.podNode[id]] : "", state: stateNames[model.podState[id]], details, x, y,
    owner: owner && model.ownerThere[owner] ? { kind: model.ownerKinds[owner], namespace: model.ownerNamespaces[owner], name: model.ownerNames[owner] } : undefined,
  };
}

const groupOf = (cell: number) => layout?.groups.find((g) => g.cells.includes(cell));
/** groupName is the group that a node is shown in. */
const groupName = (node: number) => (labelOf(by) ? model.nodeLabels : model.nodeZones)[node];

const gib = (mib: number) => (mib >= 1024 ? `${+(mib / 1024).toFixed(1)} GiB` : `${mib} MiB`);

type Named = Pick<Item, "kind" | "namespace" | "name">;
const name = (w: What): Named =>
  w.kind !== "pod" ? { kind: w.kind, namespace: "", name: w.kind === "node" ? model.nodeNames[w.id] : cells.name(w.id) } : { kind: "pod", namespace: model.podNamespaces[w.id], name: model.podNames[w.id] };

function reselect(n: Named): What | null {
  if (n.kind === "group") {
    const g = cells.kind === "group" && layout?.groups.find((g) => cells.name(g.cells[0]) === n.name);
    return g ? { kind: "group", id: g.cells[0] } : null;
  }
  const id = n.kind === "node" ? model.nodeNamed(n.name) : model.podNamed(n.namespace, n.name);
  return id >= 0 ? { kind: n.kind, id } : null;
}
const idOf = (i: Item) => reselect(i);

function hover() {
  const was = hovered;
  hovered = hoverAt && item(at(...hoverAt));
  if (hovered?.name === was?.name && hovered?.namespace === was?.namespace && hovered?.state === was?.state && hovered?.details.join() === was?.details.join()) return;
  tell({ type: "hover", item: hovered });
  reline = true;
  wake();
}

function select(what: What | null, reveal: boolean) {
  selected = what;
  if (what && reveal) {
    const b = rectOf(what);
    if (b) {
      const m = 24;
      let dx = 0, dy = 0;
      if (b.x < m) dx = m - b.x;
      else if (b.x + b.w > width - m) dx = width - m - b.x - b.w;
      if (b.y < top + m) dy = top + m - b.y;
      else if (b.y + b.h > height - m) dy = height - m - b.y - b.h;
      if (dx || dy) {
        view.x += dx;
        view.y += dy;
        moved();
      }
    }
  }
  tell({ type: "picked", item: item(what) });
  reline = true;
  wake();
}

/** page is the node or pod that the page has opened, and stated what it has been told of its state; "" is not there. */
let page: Named | null = null, stated = "";

/** follow tells the page the state of what it has opened, where it is another one. */
function follow() {
  if (!page) return;
  const state = item(reselect(page))?.state ?? "";
  if (state === stated) return;
  stated = state;
  tell({ type: "opened", kind: page.kind, namespace: page.namespace, name: page.name, state });
}

/** move selects the next node or pod in a direction. */
function move(dx: number, dy: number) {
  if (!layout || !layout.groups.length) return;
  if (!selected || !rectOf(selected)) return select({ kind: cells.kind, id: layout.groups[0].cells[0] }, true);
  if (selected.kind === "pod" && cells.of(selected.id)) {
    const slots = cells.slots[cells.of(selected.id)], n = Math.min(slots.length, layout.side ** 2);
    const by = dx + dy * layout.side;
    for (let i = cells.place(selected.id) + by; i >= 0 && i < n; i += dx || Math.sign(by) * layout.side) if (slots[i] >= 0) return select({ kind: "pod", id: slots[i] }, true);
    return;
  }
  const from = selected.kind === "pod" ? cells.of(selected.id) : selected.id;
  const x = layout.xs[from], y = layout.ys[from];
  let best = -1, least = Infinity;
  for (const g of layout.groups) {
    for (const id of g.cells) {
      const ax = (layout.xs[id] - x) * dx + (layout.ys[id] - y) * dy, across = Math.abs((layout.xs[id] - x) * dy) + Math.abs((layout.ys[id] - y) * dx);
      if (ax <= 0.01) continue;
      const d = ax + across * 3;
      if (d < least) {
        least = d;
        best = id;
      }
    }
  }
  if (best >= 0) select({ kind: cells.kind, id: best }, true);
}

// ---- Searching and answers.

function seek() {
  if (!raster) return;
  if (find === "") {
    raster.found = null;
    tell({ type: "found", count: -1 });
  } else {
    const n = model.podNames.length, mask = new Uint8Array(n), words = find.toLowerCase().split(/\s+/);
    let count = 0;
    for (let id = 0; id < n; id++) {
      if (!model.podThere[id]) continue;
      const owner = model.podOwner[id];
      const text = `${model.podNamespaces[id]}/${model.podNames[id]} ${owner ? model.ownerKinds[owner] : ""} ${model.nodeNames[model.podNode[id]] ?? ""} ${stateNames[model.podState[id]]}`.toLowerCase();
      if (words.every((w) => text.includes(w))) {
        mask[id] = 1;
        count++;
      }
    }
    raster.found = mask;
    tell({ type: "found", count });
  }
  redraw = true;
  wake();
}

/** rows returns the nodes, or the groups of pods, whose names or groups have a text. */
function rows(filter: string, from: number, count: number): { total: number; rows: Row[] } {
  const f = filter.toLowerCase(), all: (() => Row)[] = [];
  for (const g of layout?.groups ?? []) {
    const whole = g.name.toLowerCase().includes(f);
    if (cells.kind === "group") {
      if (whole) all.push(() => ({ name: g.name, group: "", flags: 0, counts: [...model.podsOf(g.cells.flatMap((c) => cells.slots[c]))] }));
    } else for (const id of g.cells) if (whole || model.nodeNames[id].toLowerCase().includes(f)) all.push(() => ({ name: model.nodeNames[id], group: groupName(id), flags: model.nodeFlags[id], counts: [...model.podsOf(model.slots[id])] }));
  }
  return { total: all.length, rows: all.slice(from, from + count).map((row) => row()) };
}

function pods(node: string): { namespace: string; name: string; state: string; restarts: number }[] {
  const id = model.nodeNamed(node);
  if (id < 0) return [];
  return model.slots[id].filter((p) => p >= 0).slice(0, 500).map((p) => ({ namespace: model.podNamespaces[p], name: model.podNames[p], state: stateNames[model.podState[p]], restarts: model.podRestarts[p] }));
}

/** tree returns an owner with what belongs to it, as far as a person can take in. */
function tree(kind: string, namespace: string, name: string): Tree | null {
  if (kind === "Pod") {
    const id = model.podNamed(namespace, name);
    return id < 0 ? null : leaf(id);
  }
  const id = model.ownerNamed(kind, namespace, name);
  if (id < 0) return null;
  const below = new Map<number, number[]>(), podsBelow = new Map<number, number[]>();
  for (let i = 0; i < model.ownerNames.length; i++) if (model.ownerThere[i] && model.ownerParents[i]) push(below, model.ownerParents[i], i);
  for (let i = 0; i < model.podNames.length; i++) if (model.podThere[i] && model.podOwner[i]) push(podsBelow, model.podOwner[i], i);
  const seen = new Set<number>();
  const grow = (o: number): Tree => {
    seen.add(o);
    const all = podsBelow.get(o) ?? [];
    const shown = all.slice(0, 60).map(leaf);
    const owners = (below.get(o) ?? []).filter((c) => !seen.has(c));
    return {
      kind: model.ownerKinds[o], namespace: model.ownerNamespaces[o], name: model.ownerNames[o], state: model.ownerReady[o] || model.ownerDesired[o] ? `${model.ownerReady[o]}/${model.ownerDesired[o]} ready` : "",
      children: [...owners.slice(0, 30).map(grow), ...shown], more: Math.max(0, all.length - 60) + Math.max(0, owners.length - 30),
    };
  };
  return grow(id);
}
/** metrics reads the API server's own metrics, which are a text of a megabyte. */
async function metrics(): Promise<{ at: number; requests: Requests } | { error: string }> {
  try {
    const res = await fetch(`${base}/metrics`, { credentials: "same-origin", cache: "no-store" });
    return res.ok ? { at: Date.now(), requests: requests(await res.text()) } : { error: await refusal(res) };
  } catch (e) {
    return { error: e instanceof Error ? e.message : String(e) };
  }
}

const leaf = (id: number): Tree => ({ kind: "Pod", namespace: model.podNamespaces[id], name: model.podNames[id], state: stateNames[model.podState[id]], node: model.nodeNames[model.podNode[id]], children: [], more: 0 });
function push(m: Map<number, number[]>, k: number, v: number) {
  const a = m.get(k);
  if (a) a.push(v);
  else m.set(k, [v]);
}

// ---- What the page is told.

setInterval(() => {
  const now = performance.now();
  if (cells.recounted) {
    cells.recounted = false;
    redraw = true;
    wake();
  }
  if (flow.count(now)) {
    reline = news = true;
    wake();
  }
  if (!news || asleep) return;
  news = false;
  follow();
  let notReady = 0;
  for (let id = 1; id < model.nodeNames.length; id++) if (model.nodeThere[id] && !well(model.nodeFlags[id])) notReady++;
  tell({
    type: "summary",
    summary: {
      nodes: model.nodeCount, nodesNotReady: notReady, pods: model.podCount, counts: [...model.counts], stats, rates: { ...flow.rates },
      actors: [...actors].sort((a, b) => b[1] - a[1]).slice(0, 8), steps: steps.slice(-40), dropped, lag, drawn, zoom: view.scale,
    },
  });
  for (const [k, n] of actors) if (n < 2) actors.delete(k);
  else actors.set(k, n / 2);
  if (selected) {
    if (!rectOf(selected)) selected = null;
    tell({ type: "picked", item: item(selected) });
    reline = true;
    wake();
  }
}, 500);

self.onmessage = (e: MessageEvent<ToWorker>) => {
  const m = e.data;
  switch (m.type) {
    case "init":
      base = m.url;
      raster = new Raster(m.base.getContext("2d", { alpha: false })!);
      over = m.over.getContext("2d")!;
      break;
    case "colors":
      palette = m.palette;
      raster!.palette(m.palette);
      flow.still = m.still;
      redraw = true;
      break;
    case "size": {
      const other = m.width !== width || m.height !== height || m.top !== top || m.ratio !== ratio;
      ({ width, height, top, ratio } = m);
      flow.place(m.stations, top);
      reline = true;
      if (other) {
        raster!.resize(Math.round(width * ratio), Math.round((height - top) * ratio));
        over!.canvas.width = Math.round(width * ratio);
        over!.canvas.height = Math.round(height * ratio);
        if (fitted) {
          cells.moved = true;
          laid = -Infinity;
        }
        redraw = true;
      }
      break;
    }
    case "open":
      void open(m.at, m.namespace);
      return;
    case "away":
      // A page that nobody sees ends its stream after a while: a browser has few connections to a host.
      clearTimeout(asleep);
      if (m.away) {
        asleep = setTimeout(() => {
          asleep = -1;
          generation++;
          abort?.abort();
        }, 60_000) as unknown as number;
      } else if (asleep === -1 && opened) void open(...opened);
      if (!m.away) asleep = 0;
      return;
    case "group": {
      if (m.by === by) break;
      const label = labelOf(by);
      by = m.by;
      if (selected?.kind !== "pod") selected = null;
      hovered = null;
      cells = cellsOf(model, by);
      layout = null;
      fitted = redraw = news = true;
      if (opened && labelOf(by) !== label) void open(...opened);
      break;
    }
    case "show":
      shown = m.shown;
      waiting = []; // what was written meanwhile is not drawn late
      redraw = news = true;
      break;
    case "pan":
      view.x += m.x;
      view.y += m.y;
      moved();
      break;
    case "zoom":
      zoom(m.by, m.x, m.y);
      break;
    case "fit":
      fit();
      break;
    case "hover":
      hoverAt = [m.x, m.y];
      hover();
      break;
    case "leave":
      hoverAt = null;
      hover();
      break;
    case "pick":
      select(at(m.x, m.y), false);
      break;
    case "move":
      move(m.x, m.y);
      break;
    case "into":
      if (selected && selected.kind === cells.kind) {
        const pod = cells.slots[selected.id]?.find((p) => p >= 0);
        if (pod !== undefined) select({ kind: "pod", id: pod }, true);
      }
      break;
    case "out":
      select(selected?.kind === "pod" && cells.of(selected.id) ? { kind: cells.kind, id: cells.of(selected.id) } : null, false);
      break;
    case "find":
      find = m.text.trim();
      seek();
      break;
    case "select":
      page = { kind: m.kind, namespace: m.namespace, name: m.name };
      stated = "";
      follow();
      select(reselect(m), true);
      break;
    case "ask": {
      if (m.what === "requests") {
        void metrics().then((value) => tell({ type: "answer", id: m.id, value }));
        return;
      }
      const value = m.what === "cells" ? rows(m.filter, m.from, m.count) : m.what === "pods" ? pods(m.node) : tree(m.kind, m.namespace, m.name);
      tell({ type: "answer", id: m.id, value });
      return;
    }
  }
  wake();
};
