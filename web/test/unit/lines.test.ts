import assert from "node:assert/strict";
import { test } from "node:test";
import { Lines } from "../../src/picture/lines";

test("records that are cut anywhere are whole again", () => {
  const text = '["hello",{"version":1}]\n["pod",1,"a","b\\nc",2,2,1,0,0]\n["ready"]\n';
  const want = [["hello", { version: 1 }], ["pod", 1, "a", "b\nc", 2, 2, 1, 0, 0], ["ready"]];
  for (let cut = 1; cut < text.length; cut++) {
    const l = new Lines();
    assert.deepEqual([...l.push(text.slice(0, cut)), ...l.push(text.slice(cut))], want, `cut at ${cut}`);
  }
});

test("a line that is no record is left out, and those around it are not", () => {
  const l = new Lines();
  assert.deepEqual(l.push('["a"]\n{"b":\n7\n\n["c"]\n'), [["a"], ["c"]]);
  assert.equal(l.bad, 2);
});

test("a line cannot end the array in which lines are parsed together", () => {
  const l = new Lines();
  assert.deepEqual(l.push('["a"]],[["x"]\n["c"]\n'), [["c"]]);
});
