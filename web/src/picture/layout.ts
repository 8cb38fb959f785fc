/**
 * The places of nodes: cells of equal size, in groups by zone, packed so that
 * the whole has about the shape of the viewport. A cell is one unit wide.
 */
import type { Model } from "./model";

export interface Group {
  name: string;
  x: number;
  y: number;
  columns: number;
  rows: number;
  nodes: number[]; // ids in order of their names
}

export interface Layout {
  width: number;
  height: number;
  groups: Group[];
  /** side is how many pods are side by side in a cell. */
  side: number;
  /** xs and ys are the cells' corners by node id; NaN where there is none. */
  xs: Float32Array;
  ys: Float32Array;
  /** group is a node's group by its id. */
  group: Int32Array;
}

/** gap is the space between groups; title that of a group's name above it. Both in cells. */
const gap = 1, title = 1;

export const compareNames = new Intl.Collator("en", { numeric: true }).compare;

/** lay places the nodes of a model for a viewport of the given shape (width / height). */
export function lay(m: Model, shape: number): Layout {
  const by = new Map<string, number[]>();
  for (let id = 1; id < m.nodeNames.length; id++) {
    if (!m.nodeThere[id]) continue;
    const zone = m.nodeZones[id], g = by.get(zone);
    if (g) g.push(id);
    else by.set(zone, [id]);
  }
  const names = [...by.keys()].sort(compareNames);
  const groups: Group[] = names.map((name) => ({ name, x: 0, y: 0, columns: 1, rows: 1, nodes: by.get(name)!.sort((a, b) => compareNames(m.nodeNames[a], m.nodeNames[b])) }));
  const named = groups.length > 1 || (groups.length === 1 && groups[0].name !== "") ? title : 0;
  // Groups stand side by side as long as that is not wider than the viewport: the
  // number of groups in a row with the best scale is taken.
  let best = { scale: -1, across: 1 };
  for (let across = 1; across <= Math.min(groups.length, 12); across++) {
    const size = place(groups, across, shape, named);
    const scale = Math.min(shape / size.width, 1 / size.height);
    if (scale > best.scale) best = { scale, across };
  }
  const size = groups.length ? place(groups, best.across, shape, named) : { width: 1, height: 1 };
  const n = m.nodeNames.length, xs = new Float32Array(n).fill(NaN), ys = new Float32Array(n).fill(NaN), group = new Int32Array(n).fill(-1);
  groups.forEach((g, gi) => {
    g.nodes.forEach((id, i) => {
      xs[id] = g.x + (i % g.columns);
      ys[id] = g.y + Math.floor(i / g.columns);
      group[id] = gi;
    });
  });
  return { ...size, groups, side: Math.min(16, Math.max(3, Math.ceil(Math.sqrt(m.widest)))), xs, ys, group };
}

/** place sets the groups' places for a number of them side by side, and returns the size of all. */
function place(groups: Group[], across: number, shape: number, named: number): { width: number; height: number } {
  let width = 0, y = 0;
  for (let i = 0; i < groups.length; i += across) {
    const row = groups.slice(i, i + across);
    let x = 0, height = 0;
    for (const g of row) {
      g.columns = columns(g.nodes.length, (shape * Math.ceil(groups.length / across)) / across);
      g.rows = Math.ceil(g.nodes.length / g.columns);
      g.x = x;
      g.y = y + named;
      x += g.columns + gap;
      height = Math.max(height, g.rows + named);
    }
    width = Math.max(width, x - gap);
    y += height + gap;
  }
  return { width: Math.max(1, width), height: Math.max(1, y - gap) };
}

/** columns is the number of columns in which n cells fill a place of a shape best. */
function columns(n: number, shape: number): number {
  const c = Math.max(1, Math.floor(Math.sqrt(n * shape)));
  const scale = (c: number) => Math.min(shape / c, 1 / Math.ceil(n / c));
  return Math.min(n, scale(c + 1) > scale(c) ? c + 1 : c);
}
