/**
 * Cells are the places of the picture: the nodes, or, where pods are grouped by
 * something of their own, blocks of a group's pods.
 */
import { type Model, NodeFlag } from "./model";

/** Grouping is by what the picture is grouped: the nodes' zones or the values of a label of theirs, or the pods' namespaces or owners. */
export type Grouping = "zone" | "namespace" | "owner" | `label:${string}`;

/** grouping reads a Grouping from an address; what is none is "zone". */
export function grouping(text: string | null): Grouping {
  return text === "namespace" || text === "owner" || /^label:./.test(text ?? "") ? (text as Grouping) : "zone";
}

/** labelOf is the key of the label that nodes are grouped by, "" if they are not. */
export const labelOf = (by: Grouping): string => (by.startsWith("label:") ? by.slice(6) : "");

export interface Cells {
  kind: "node" | "group";
  /** slots holds a cell's pods by their places; -1 is a free one. Cell 0 stands for none. */
  slots: number[][];
  /** of returns a pod's cell, place its place there. */
  of(pod: number): number;
  place(pod: number): number;
  name(cell: number): string;
  flags(cell: number): number;
  /** groups returns the cells of each group. */
  groups(): { name: string; cells: number[]; size(): string }[];
  /** dirty are the cells to be drawn again, moved: cells came or went; emptied by who draws. */
  dirty: Set<number>;
  moved: boolean;
  /** recounted: the sizes of groups are other ones than when they were drawn. */
  recounted: boolean;
  /** widest is the greatest number of places of a cell. */
  widest: number;
}

const count = (n: number, what: string) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/** cellsOf returns the cells of a model, which keeps them up to date. */
export function cellsOf(m: Model, by: Grouping): Cells {
  if (by === "zone" || labelOf(by)) {
    m.pods = null;
    m.moved = true;
    return new Nodes(m, by);
  }
  return (m.pods = new Blocks(m, by === "namespace" ? (pod) => m.podNamespaces[pod] : (pod) => ownerOf(m, pod)));
}

/** ownerOf names the topmost owner of a pod. */
function ownerOf(m: Model, pod: number): string {
  let o = m.podOwner[pod];
  if (!o || !m.ownerThere[o]) return "";
  for (let depth = 0; depth < 8 && m.ownerParents[o] && m.ownerThere[m.ownerParents[o]]; depth++) o = m.ownerParents[o];
  return `${m.ownerKinds[o]} ${m.ownerNamespaces[o]}/${m.ownerNames[o]}`;
}

/** Nodes are the nodes of a model as cells. */
class Nodes implements Cells {
  kind = "node" as const;
  recounted = false; // nodes come and go with a new layout
  constructor(private m: Model, private by: Grouping) {}
  get slots() { return this.m.slots; }
  get dirty() { return this.m.dirty; }
  get moved() { return this.m.moved; }
  set moved(v) { this.m.moved = v; }
  get widest() { return this.m.widest; }
  of(pod: number) { return this.m.podNode[pod]; }
  place(pod: number) { return this.m.podSlot[pod]; }
  name(cell: number) { return this.m.nodeNames[cell]; }
  flags(cell: number) { return this.m.nodeFlags[cell]; }
  groups() {
    const { m } = this, values = labelOf(this.by) ? m.nodeLabels : m.nodeZones, all = new Map<string, number[]>();
    for (let id = 1; id < m.nodeNames.length; id++) {
      if (!m.nodeThere[id]) continue;
      const g = all.get(values[id]);
      if (g) g.push(id);
      else all.set(values[id], [id]);
    }
    for (const cells of all.values()) cells.sort((a, b) => compareNames(m.nodeNames[a], m.nodeNames[b]));
    return [...all].map(([name, cells]) => ({ name: name || (all.size > 1 ? `no ${labelOf(this.by) || "zone"}` : ""), cells, size: () => count(cells.length, "node") }));
  }
}

export const compareNames = new Intl.Collator("en", { numeric: true }).compare;

/** per is how many pods a block has room for. */
const per = 16;

interface Group {
  name: string;
  cells: number[];
  pods: number;
  free: [cell: number, place: number][];
}

/** Blocks are the pods of a model in groups, in cells of 16. A pod stays where it is, unless half of its group's places are free. */
export class Blocks implements Cells {
  kind = "group" as const;
  slots: number[][] = [[]];
  dirty = new Set<number>();
  moved = true;
  recounted = false;
  widest = per;
  private all = new Map<string, Group>();
  private groupOf: (Group | undefined)[] = [undefined]; // by cell
  private cells: number[] = []; // by pod
  private places: number[] = [];
  private spare: number[] = []; // cells that are not in use
  private stale = false;

  constructor(private m: Model, private key: (pod: number) => string) {
    this.fill();
  }

  private fill() {
    for (let pod = 0; pod < this.m.podNames.length; pod++) if (this.m.podThere[pod]) this.put(pod);
  }

  /** put takes a pod that is new or has changed. */
  put(pod: number) {
    const name = this.key(pod), was = this.groupOf[this.of(pod)];
    if (was?.name === name) return void this.dirty.add(this.of(pod));
    if (was) this.gone(pod);
    let g = this.all.get(name);
    if (!g) this.all.set(name, (g = { name, cells: [], pods: 0, free: [] }));
    if (!g.free.length) this.grow(g);
    const [cell, place] = g.free.pop()!;
    this.slots[cell][place] = pod;
    this.cells[pod] = cell;
    this.places[pod] = place;
    g.pods++;
    this.recounted = true;
    this.dirty.add(cell);
  }

  /** gone takes the end of a pod. */
  gone(pod: number) {
    const cell = this.of(pod), g = this.groupOf[cell];
    if (!g) return;
    this.slots[cell][this.places[pod]] = -1;
    g.free.push([cell, this.places[pod]]);
    this.cells[pod] = 0;
    this.recounted = true;
    this.dirty.add(cell);
    if (--g.pods === 0) this.drop(g);
    else if (g.free.length > g.pods + per) this.pack(g);
  }

  /** regroup says that groups of pods have changed. */
  regroup() {
    this.stale = true;
  }

  private grow(g: Group) {
    const cell = this.spare.pop() ?? this.slots.length;
    this.slots[cell] = new Array(per).fill(-1);
    this.groupOf[cell] = g;
    g.cells.push(cell);
    for (let i = per - 1; i >= 0; i--) g.free.push([cell, i]);
    this.moved = true;
  }

  private drop(g: Group) {
    for (const cell of g.cells) {
      this.slots[cell] = [];
      this.groupOf[cell] = undefined;
      this.spare.push(cell);
    }
    this.all.delete(g.name);
    this.moved = true;
  }

  private pack(g: Group) {
    const pods = g.cells.flatMap((c) => this.slots[c].filter((p) => p >= 0));
    this.drop(g);
    for (const p of pods) this.cells[p] = 0;
    for (const p of pods) this.put(p);
  }

  of(pod: number) { return this.cells[pod] ?? 0; }
  place(pod: number) { return this.places[pod] ?? 0; }
  name(cell: number) { return this.groupOf[cell]?.name || "no owner"; }
  flags() { return NodeFlag.Ready; }
  groups() {
    if (this.stale) {
      this.stale = false;
      for (const g of [...this.all.values()]) this.drop(g);
      this.cells.fill(0);
      this.fill();
    }
    return [...this.all.values()].map((g) => ({ name: g.name || "no owner", cells: g.cells, size: () => count(g.pods, "pod") }));
  }
}
