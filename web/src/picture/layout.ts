/**
 * The places of cells: of equal size, in groups, packed so that the whole has
 * about the shape of the viewport. A cell is one unit wide.
 */
import { type Cells, compareNames } from "./cells";

export interface Group {
  name: string;
  x: number;
  y: number;
  columns: number;
  rows: number;
  cells: number[];
  /** size says how many there are in it. */
  size(): string;
}

export interface Layout {
  width: number;
  height: number;
  groups: Group[];
  /** named reports whether cells have names of their own. */
  named: boolean;
  /** side is how many pods are side by side in a cell. */
  side: number;
  /** xs and ys are the cells' corners by their numbers; NaN where there is none. */
  xs: Float32Array;
  ys: Float32Array;
}

/** gap is the space between groups; title that of a group's name above it. Both in cells. */
const gap = 1, title = 1;

/** lay places cells for a viewport of the given shape (width / height). */
export function lay(cells: Cells, shape: number): Layout {
  const groups: Group[] = cells.groups().sort((a, b) => compareNames(a.name, b.name)).map((g) => ({ ...g, x: 0, y: 0, columns: 1, rows: 1 }));
  const named = groups.length > 1 || (groups.length === 1 && groups[0].name !== "") ? title : 0;
  // Groups stand side by side as long as that is not wider than the viewport: the
  // number of groups in a row with the best scale is taken.
  let best = { scale: -1, across: 1 };
  for (let across = 1; across <= groups.length; across = across < 12 ? across + 1 : Math.ceil(across * 1.2)) {
    const size = place(groups, across, shape, named);
    const scale = Math.min(shape / size.width, 1 / size.height);
    if (scale > best.scale) best = { scale, across };
  }
  const size = groups.length ? place(groups, best.across, shape, named) : { width: 1, height: 1 };
  const n = cells.slots.length, xs = new Float32Array(n).fill(NaN), ys = new Float32Array(n).fill(NaN);
  for (const g of groups) {
    g.cells.forEach((id, i) => {
      xs[id] = g.x + (i % g.columns);
      ys[id] = g.y + Math.floor(i / g.columns);
    });
  }
  return { ...size, groups, named: cells.kind === "node", side: Math.min(16, Math.max(3, Math.ceil(Math.sqrt(cells.widest)))), xs, ys };
}

/** place sets the groups' places for a number of them side by side, and returns the size of all. */
function place(groups: Group[], across: number, shape: number, named: number): { width: number; height: number } {
  let width = 0, y = 0;
  for (let i = 0; i < groups.length; i += across) {
    const row = groups.slice(i, i + across);
    let x = 0, height = 0;
    for (const g of row) {
      g.columns = columns(g.cells.length, (shape * Math.ceil(groups.length / across)) / across);
      g.rows = Math.ceil(g.cells.length / g.columns);
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
