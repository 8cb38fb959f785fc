import assert from "node:assert/strict";
import { test } from "node:test";
import { cellsOf } from "../../src/picture/cells";
import { lay } from "../../src/picture/layout";
import { Model, State, stateOf } from "../../src/picture/model";

const node = (id: number, name: string, zone = "") => ["node", id, name, 1, [8000, 32768, 110], zone];
const pod = (id: number, name: string, node: number, phase = 2, flags = 1) => ["pod", id, "shop", name, node, phase, flags, 0, 0];

test("the states of pods", () => {
  for (const [phase, flags, want] of [[0, 0, State.Pending], [0, 8, State.Unschedulable], [1, 0, State.Starting], [2, 0, State.Starting], [2, 1, State.Ready], [2, 4, State.Failing], [4, 0, State.Failing], [3, 0, State.Done], [5, 0, State.Unknown], [2, 3, State.Ending], [3, 2, State.Ending]]) {
    assert.equal(stateOf(phase, flags), want, `phase ${phase}, flags ${flags}`);
  }
});

test("pods are found by their names, from the first question on", () => {
  const m = new Model();
  m.apply(pod(1, "a", 0));
  m.apply(pod(2, "b", 0));
  m.apply(["gone", "pod", 1]);
  assert.deepEqual(["a", "b"].map((n) => m.podNamed("shop", n)), [-1, 2]);
  m.apply(pod(1, "c", 0));
  m.apply(["gone", "pod", 2]);
  assert.deepEqual(["a", "b", "c"].map((n) => m.podNamed("shop", n)), [-1, -1, 1]);
});

test("pods keep their places, and the counts are right after any changes", () => {
  // A small generator of random numbers, so that a failure can be repeated.
  let seed = 1;
  const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
  const m = new Model(), want = new Map<number, { node: number; state: number }>();
  for (let i = 1; i <= 5; i++) m.apply(node(i, `n${i}`));
  for (let step = 0; step < 20_000; step++) {
    const id = 1 + random(300);
    if (random(4) === 0) {
      m.apply(["gone", "pod", id]);
      want.delete(id);
      continue;
    }
    const n = random(6), phase = n ? 1 + random(5) : 0, flags = random(16);
    const before = want.get(id)?.node === n ? m.podSlot[id] : -1;
    m.apply(pod(id, `p${id}`, n, phase, flags));
    want.set(id, { node: n, state: stateOf(phase, flags) });
    if (before >= 0) assert.equal(m.podSlot[id], before, "a pod that stays on its node moved");
    assert.equal(m.slots[n][m.podSlot[id]], id);
  }
  assert.equal(m.podCount, want.size);
  const counts = new Int32Array(8);
  for (const [id, w] of want) {
    counts[w.state]++;
    assert.equal(m.podNode[id], w.node);
    assert.equal(m.podNamed("shop", `p${id}`), id);
  }
  assert.deepEqual(m.counts, counts);
  for (let n = 0; n < 6; n++) {
    const there = m.slots[n].filter((p) => p >= 0);
    assert.equal(new Set(there).size, there.length);
    assert.deepEqual(new Set(there), new Set([...want].filter(([, w]) => w.node === n).map(([id]) => id)));
  }
});

test("ids that are no ids are refused", () => {
  const m = new Model();
  for (const id of [-1, 1.5, 1e9, "x", null, NaN]) {
    m.apply(["pod", id, "a", "b", 1, 2, 1, 0, 0]);
    m.apply(["node", id, "a", 1, [0, 0, 0], ""]);
    m.apply(["gone", "pod", id]);
  }
  assert.equal(m.podCount + m.nodeCount, 0);
});

test("no two nodes are at one place, and groups are in order", () => {
  for (const [nodes, zones, shape] of [[1, 1, 1], [3, 1, 1.6], [7, 2, 0.5], [5000, 5, 1.6], [1000, 40, 0.4]]) {
    const m = new Model();
    for (let i = 1; i <= nodes; i++) m.apply(node(i, `n${i}`, zones > 1 ? `z${i % zones}` : ""));
    const l = lay(cellsOf(m, "zone"), shape), seen = new Set<string>();
    for (let i = 1; i <= nodes; i++) {
      assert.ok(l.xs[i] >= 0 && l.xs[i] + 1 <= l.width && l.ys[i] >= 0 && l.ys[i] + 1 <= l.height, `node ${i} of ${nodes} is at ${l.xs[i]},${l.ys[i]} of ${l.width}×${l.height}`);
      seen.add(`${l.xs[i]},${l.ys[i]}`);
    }
    assert.equal(seen.size, nodes);
    assert.equal(l.groups.length, Math.min(zones, nodes));
  }
});

test("three nodes are in a line where that is wider than high", () => {
  const m = new Model();
  for (let i = 1; i <= 3; i++) m.apply(node(i, `n${i}`));
  assert.deepEqual([lay(cellsOf(m, "zone"), 1.8).groups[0].columns, lay(cellsOf(m, "zone"), 0.5).groups[0].columns], [3, 1]);
});
