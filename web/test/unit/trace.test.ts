import assert from "node:assert/strict";
import { test } from "node:test";
import { ms, range, timeline, type TraceStep } from "../../src/trace";

const step = (uid: string, time: string, more: Partial<TraceStep> = {}): TraceStep => ({ uid, time: `2026-11-30T00:00:${time}Z`, actor: "x", verb: "update", resource: "pods", name: uid, ...more });

test("what was written because of an object is below it", () => {
  const t = timeline("d", [step("d", "00.1"), step("r", "00.2", { causeUID: "d" }), step("p", "00.3", { causeUID: "r", ms: 150 }), step("d", "00.4", { causeUID: "r" }), step("r", "00.5")]);
  assert.deepEqual(t.bars.map((b) => [b.step.uid, b.depth, b.first, Math.round(b.begin), Math.round(b.end)]), [["d", 0, true, 0, 0], ["d", 0, false, 300, 300], ["r", 1, true, 100, 100], ["r", 1, false, 400, 400], ["p", 2, true, 50, 200]]);
  assert.equal(Math.round(t.length), 400);
});

test("causes in a circle, and steps without any, are shown once", () => {
  const t = timeline("a", [step("a", "00.1", { causeUID: "b" }), step("b", "00.2", { causeUID: "a" }), step("c", "00.3", { causeUID: "unknown" })]);
  assert.deepEqual(t.bars.map((b) => b.step.uid), ["a", "b", "c"]);
});

test("times have their microseconds", () => {
  assert.ok(Math.abs(ms("2026-11-30T03:56:33.396664501Z") - ms("2026-11-30T03:56:33.396Z") - 0.664501) < 0.001);
});

test("the number of steps is bounded", () => {
  const t = timeline("a", Array.from({ length: 2000 }, () => step("a", "00.1")));
  assert.deepEqual([t.bars.length, t.more], [600, 1400]);
});

test("what was asked for last is shown at first, or what was before a long pause", () => {
  const steps = [step("a", "00.1"), step("a", "00.2"), step("a", "30.0"), step("a", "30.1")];
  const t = timeline("a", steps), rounded = (r: [number, number]) => r.map(Math.round);
  assert.deepEqual(rounded(range(t, { uid: "a", steps })), [0, 110]);
  assert.deepEqual(rounded(range(t, { uid: "a", steps, begin: "2026-11-30T00:00:30.0Z", totalMs: 50 })), [29900, 29955]);
  assert.deepEqual(rounded(range(timeline("a", steps.slice(0, 2)), { uid: "a", steps })), [0, 100]);
});
