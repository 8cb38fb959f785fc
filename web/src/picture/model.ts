/**
 * The model of the cluster that a stream describes: typed arrays by the
 * stream's ids, so that 50,000 pods are a few megabytes and none is an object.
 */

/** The states of pods, as they are drawn. */
export const State = { Ready: 0, Starting: 1, Pending: 2, Unschedulable: 3, Failing: 4, Ending: 5, Done: 6, Unknown: 7 } as const;
export const states = 8;
export const stateNames = ["Ready", "Not ready", "Pending", "Unschedulable", "Failing", "Ending", "Done", "Unknown"];

/** Named is a node of which only the name is known. */
export const NodeFlag = { Ready: 1, Cordoned: 2, Pressure: 4, Simulated: 8, Named: 16 } as const;
/** well reports whether nothing says that a node is not ready. */
export const well = (flags: number): boolean => (flags & (NodeFlag.Ready | NodeFlag.Named)) !== 0;
export const PodFlag = { Ready: 1, Deleting: 2, Waiting: 4, Unschedulable: 8 } as const;

/** A write: [ms, actor, verb, resource, namespace, name, revision, cause, what]. The verb has the subresource: update/status. */
export type Step = [number, string, string, string, string, string, string, string, string?];

export interface Hello {
  version: number;
  user: string;
  rv: string;
  now: number;
  may: Record<string, boolean>;
  history: number;
}

export interface Stats {
  writesPerSecond?: number;
  watches?: number;
  storeObjects?: number;
  revision?: string;
}

/** stateOf returns the state of a pod with the stream's phase and flags. */
export function stateOf(phase: number, flags: number): number {
  if (flags & PodFlag.Deleting) return State.Ending;
  if (phase === 3) return State.Done;
  if (phase === 4 || flags & PodFlag.Waiting) return State.Failing;
  if (phase === 5) return State.Unknown;
  if (phase === 2) return flags & PodFlag.Ready ? State.Ready : State.Starting;
  if (phase === 1) return State.Starting;
  return flags & PodFlag.Unschedulable ? State.Unschedulable : State.Pending;
}

/** most is above any id that a stream gives; larger ones are refused, so that a fault cannot take all memory. */
const most = 1 << 23;

const grown = <T extends Int32Array | Uint8Array | Uint16Array>(a: T, id: number): T => {
  if (id < a.length) return a;
  let n = a.length;
  while (n <= id) n *= 2;
  const b = new (a.constructor as new (n: number) => T)(n);
  b.set(a as never);
  return b;
};

export class Model {
  nodeNames: string[] = [];
  nodeZones: string[] = [];
  /** nodeLabels are the values of the label that the stream was asked for. */
  nodeLabels: string[] = [];
  nodeFlags = new Uint8Array(64);
  nodeThere = new Uint8Array(64);
  nodeSizes: [number, number, number][] = [];
  /** slots holds a node's pods by their places; -1 is a free one. Node 0 stands for none. */
  slots: number[][] = [[]];
  nodeCount = 0;
  private byName = new Map<string, number>();

  podNames: string[] = [];
  podNamespaces: string[] = [];
  podNode = new Int32Array(1024);
  podSlot = new Int32Array(1024);
  podOwner = new Int32Array(1024);
  podRestarts = new Int32Array(1024);
  podState = new Uint8Array(1024);
  podFlags = new Uint8Array(1024);
  podPhase = new Uint8Array(1024);
  podThere = new Uint8Array(1024);
  podCount = 0;
  counts = new Int32Array(states);
  /** podBy has the pods by their names from when one is first asked for: the first picture does not need it. */
  private podBy: Map<string, number> | null = null;
  private namespaces = new Map<string, string>();

  ownerKinds: string[] = [];
  ownerNamespaces: string[] = [];
  ownerNames: string[] = [];
  ownerParents = new Int32Array(256);
  ownerDesired = new Int32Array(256);
  ownerReady = new Int32Array(256);
  ownerThere = new Uint8Array(256);

  /** pods is told of pods that came, changed and went, where they are grouped. */
  pods: { put(pod: number): void; gone(pod: number): void; regroup(): void } | null = null;

  /** dirty are the nodes whose cells have to be drawn again, emptied by who draws; moved: nodes came, went or changed their zone. */
  dirty = new Set<number>();
  moved = true;
  /** widest is the greatest number of places that a node has had. */
  widest = 0;

  /** apply takes a record of a node, owner or pod, or of one that has gone, and reports whether it was one. */
  apply(r: unknown[]): boolean {
    const id = r[1] as number;
    switch (r[0]) {
      case "pod":
        if (ok(id)) this.pod(id, r);
        return true;
      case "node":
        if (ok(id)) this.node(id, r);
        return true;
      case "owner":
        if (ok(id)) this.owner(id, r);
        return true;
      case "gone":
        if (ok(r[2] as number)) this.gone(String(r[1]), r[2] as number);
        return true;
    }
    return false;
  }

  private node(id: number, r: unknown[]) {
    if (id === 0) return;
    this.nodeFlags = grown(this.nodeFlags, id);
    this.nodeThere = grown(this.nodeThere, id);
    const zone = String(r[5] ?? ""), label = String(r[6] ?? ""), name = String(r[2]);
    if (!this.nodeThere[id]) {
      this.nodeThere[id] = 1;
      this.nodeCount++;
      this.slots[id] ??= [];
      this.moved = true;
    } else if (this.nodeZones[id] !== zone || this.nodeLabels[id] !== label || this.nodeNames[id] !== name) this.moved = true;
    this.nodeNames[id] = name;
    this.byName.set(name, id);
    this.nodeZones[id] = zone;
    this.nodeLabels[id] = label;
    this.nodeFlags[id] = r[3] as number;
    this.nodeSizes[id] = (r[4] as [number, number, number]) ?? [0, 0, 0];
    this.dirty.add(id);
  }

  private owner(id: number, r: unknown[]) {
    this.ownerParents = grown(this.ownerParents, id);
    this.ownerDesired = grown(this.ownerDesired, id);
    this.ownerReady = grown(this.ownerReady, id);
    this.ownerThere = grown(this.ownerThere, id);
    const parent = (r[7] as number) ?? 0;
    if (this.ownerThere[id] && this.ownerParents[id] !== parent) this.pods?.regroup();
    this.ownerThere[id] = 1;
    this.ownerKinds[id] = String(r[2]);
    this.ownerNamespaces[id] = this.shared(String(r[3] ?? ""));
    this.ownerNames[id] = String(r[4]);
    this.ownerDesired[id] = r[5] as number;
    this.ownerReady[id] = r[6] as number;
    this.ownerParents[id] = parent;
  }

  private shared(namespace: string): string {
    const s = this.namespaces.get(namespace);
    if (s !== undefined) return s;
    this.namespaces.set(namespace, namespace);
    return namespace;
  }

  private pod(id: number, r: unknown[]) {
    if (id >= this.podNode.length) {
      for (const k of ["podNode", "podSlot", "podOwner", "podRestarts", "podState", "podFlags", "podPhase", "podThere"] as const) (this[k] as Int32Array) = grown(this[k] as Int32Array, id);
    }
    const node = ok(r[4] as number) ? (r[4] as number) : 0, phase = r[5] as number, flags = r[6] as number, state = stateOf(phase, flags);
    if (this.podThere[id]) {
      this.counts[this.podState[id]]--;
      if (this.podNode[id] !== node) {
        this.leave(id);
        this.take(id, node);
      }
    } else {
      this.podThere[id] = 1;
      this.podCount++;
      this.podNamespaces[id] = this.shared(String(r[2]));
      this.podNames[id] = String(r[3]);
      this.podBy?.set(this.podNamespaces[id] + "/" + this.podNames[id], id);
      this.take(id, node);
    }
    this.counts[state]++;
    this.podState[id] = state;
    this.podPhase[id] = phase;
    this.podFlags[id] = flags;
    this.podOwner[id] = (r[7] as number) ?? 0;
    this.podRestarts[id] = (r[8] as number) ?? 0;
    this.dirty.add(node);
    this.pods?.put(id);
  }

  private take(id: number, node: number) {
    const slots = (this.slots[node] ??= []);
    let i = node === 0 ? -1 : slots.indexOf(-1);
    if (node === 0 && this.free.length) i = this.free.pop()!;
    if (i < 0) i = slots.push(id) - 1;
    else slots[i] = id;
    this.podNode[id] = node;
    this.podSlot[id] = i;
    if (node && i >= this.widest) this.widest = i + 1;
    this.dirty.add(node);
  }

  /** free are free places among the pods without a node, of which there may be very many. */
  readonly free: number[] = [];

  private leave(id: number) {
    const node = this.podNode[id], slots = this.slots[node];
    slots[this.podSlot[id]] = -1;
    if (node === 0) {
      this.free.push(this.podSlot[id]);
      if (this.free.length === slots.length) {
        slots.length = 0;
        this.free.length = 0;
      }
    } else {
      let n = slots.length;
      while (n > 0 && slots[n - 1] === -1) n--;
      slots.length = n;
    }
    this.dirty.add(node);
  }

  private gone(kind: string, id: number) {
    if (kind === "pod" && this.podThere[id]) {
      this.pods?.gone(id);
      this.leave(id);
      this.podThere[id] = 0;
      this.podCount--;
      this.counts[this.podState[id]]--;
      const key = this.podNamespaces[id] + "/" + this.podNames[id];
      if (this.podBy?.get(key) === id) this.podBy.delete(key);
      this.podNames[id] = this.podNamespaces[id] = "";
    } else if (kind === "node" && this.nodeThere[id]) {
      this.nodeThere[id] = 0;
      this.nodeCount--;
      if (this.byName.get(this.nodeNames[id]) === id) this.byName.delete(this.nodeNames[id]);
      this.moved = true;
    } else if (kind === "owner" && this.ownerThere[id]) {
      this.ownerThere[id] = 0;
      this.ownerNames[id] = this.ownerNamespaces[id] = "";
    }
  }

  /** nodeNamed and podNamed return ids, or -1. */
  nodeNamed(name: string): number {
    return this.byName.get(name) ?? -1;
  }
  podNamed(namespace: string, name: string): number {
    if (!this.podBy) {
      this.podBy = new Map();
      for (let id = 0; id < this.podNames.length; id++) if (this.podThere[id]) this.podBy.set(this.podNamespaces[id] + "/" + this.podNames[id], id);
    }
    return this.podBy.get(namespace + "/" + name) ?? -1;
  }

  ownerNamed(kind: string, namespace: string, name: string): number {
    for (let i = 0; i < this.ownerNames.length; i++) {
      if (this.ownerThere[i] && this.ownerNames[i] === name && this.ownerKinds[i] === kind && this.ownerNamespaces[i] === namespace) return i;
    }
    return -1;
  }

  /** podsOf counts pods by state; -1 is none. */
  podsOf(slots: number[] = []): Int32Array {
    const out = new Int32Array(states);
    for (const id of slots) if (id >= 0) out[this.podState[id]]++;
    return out;
  }
}

const ok = (id: number) => Number.isInteger(id) && id >= 0 && id < most;
