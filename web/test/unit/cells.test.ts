import assert from "node:assert/strict";
import { test } from "node:test";
import { type Cells, cellsOf, grouping } from "../../src/picture/cells";
import { lay } from "../../src/picture/layout";
import { Model } from "../../src/picture/model";

const pod = (id: number, namespace: string, owner = 0, node = 0) => ["pod", id, namespace, `p${id}`, node, 2, 1, owner, 0];
const groups = (c: Cells) => Object.fromEntries(c.groups().map((g) => [g.name, g.size()]));

/** sound fails unless each pod is in one place, which the cells name, and in the layout. */
function sound(m: Model, c: Cells) {
  const l = lay(c, 1.6), seen = new Set<number>();
  for (const g of l.groups) {
    for (const cell of g.cells) {
      assert.ok(l.xs[cell] >= 0 && l.ys[cell] >= 0);
      c.slots[cell].forEach((p, i) => {
        if (p < 0) return;
        assert.deepEqual([c.of(p), c.place(p), seen.has(p)], [cell, i, false]);
        seen.add(p);
      });
    }
  }
  assert.equal(seen.size, m.podCount);
}

test("what an address is grouped by", () => {
  assert.deepEqual([null, "", "zone", "owner", "namespace", "label:a/b", "label:", "x"].map(grouping), ["zone", "zone", "zone", "owner", "namespace", "label:a/b", "zone", "zone"]);
});

test("pods by namespace, whatever happens to them", () => {
  let seed = 3;
  const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
  const m = new Model(), c = cellsOf(m, "namespace"), want = new Map<number, string>();
  for (let step = 0; step < 20_000; step++) {
    const id = 1 + random(500), at = c.of(id), place = c.place(id), packs = c.moved;
    if (random(step > 15_000 ? 2 : 4) === 0) {
      m.apply(["gone", "pod", id]);
      want.delete(id);
      continue;
    }
    const there = want.has(id), ns = there ? want.get(id)! : `ns-${random(7)}`;
    m.apply(pod(id, ns));
    want.set(id, ns);
    if (there && !packs) assert.deepEqual([c.of(id), c.place(id)], [at, place], "a pod that has changed stays where it is");
    if (step % 500 === 0) sound(m, c);
  }
  sound(m, c);
  const sizes: Record<string, number> = {};
  for (const ns of want.values()) sizes[ns] = (sizes[ns] ?? 0) + 1;
  assert.deepEqual(groups(c), Object.fromEntries(Object.entries(sizes).map(([ns, n]) => [ns, `${n} pod${n === 1 ? "" : "s"}`])));
  for (const id of want.keys()) m.apply(["gone", "pod", id]);
  assert.deepEqual(groups(c), {});
});

test("a group that has become small takes less room", () => {
  const m = new Model(), c = cellsOf(m, "namespace");
  for (let i = 1; i <= 1000; i++) m.apply(pod(i, "a"));
  assert.equal(c.groups()[0].cells.length, 63);
  for (let i = 1; i <= 900; i++) m.apply(["gone", "pod", i]);
  assert.ok(c.groups()[0].cells.length < 20, `${c.groups()[0].cells.length} cells for 100 pods`);
  sound(m, c);
});

test("pods by the topmost owner, which may be known later", () => {
  const m = new Model();
  m.apply(["owner", 1, "ReplicaSet", "shop", "web-1", 1, 1, 0]);
  const c = cellsOf(m, "owner");
  m.apply(pod(1, "shop", 1));
  m.apply(pod(2, "shop"));
  assert.deepEqual(groups(c), { "ReplicaSet shop/web-1": "1 pod", "no owner": "1 pod" });
  m.apply(["owner", 2, "Deployment", "shop", "web", 1, 1, 0]);
  m.apply(["owner", 1, "ReplicaSet", "shop", "web-1", 1, 1, 2]);
  assert.deepEqual(groups(c), { "Deployment shop/web": "1 pod", "no owner": "1 pod" });
  assert.equal(c.name(c.of(2)), "no owner");
  sound(m, c);
  // A ring of owners has an end.
  m.apply(["owner", 2, "Deployment", "shop", "web", 1, 1, 1]);
  groups(c);
  sound(m, c);
});

test("nodes by a label, which may change", () => {
  const m = new Model(), c = cellsOf(m, "label:pool");
  m.apply(["node", 1, "a", 1, [0, 0, 0], "z", "blue"]);
  m.apply(["node", 2, "b", 1, [0, 0, 0], "z", ""]);
  assert.deepEqual(groups(c), { blue: "1 node", "no pool": "1 node" });
  c.moved = false;
  m.apply(["node", 2, "b", 1, [0, 0, 0], "z", "blue"]);
  assert.ok(c.moved);
  assert.deepEqual(groups(c), { blue: "2 nodes" });
  // Another grouping is told of pods, and this one no more.
  const other = cellsOf(m, "namespace");
  m.apply(pod(1, "a", 0, 1));
  assert.deepEqual(groups(other), { a: "1 pod" });
  assert.equal(cellsOf(m, "zone").kind, "node");
  assert.equal(m.pods, null);
});
