import assert from "node:assert/strict";
import { test } from "node:test";
import { around, diff, merge } from "../../src/diff";

const side = (before: string, after: string, kinds: string) => diff(before, after).filter((l) => kinds.includes(l.kind)).map((l) => l.text + "\n").join("");

test("a difference has both texts, and as few lines as can be", () => {
  let seed = 7;
  const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
  for (let i = 0; i < 300; i++) {
    const text = () => Array.from({ length: random(14) }, () => "abc"[random(3)] + "\n").join("");
    const a = text(), b = text();
    assert.equal(side(a, b, " -"), a);
    assert.equal(side(a, b, " +"), b);
    assert.equal(diff(a, b).filter((l) => l.kind === " ").length, common(a.split("\n").slice(0, -1), b.split("\n").slice(0, -1)));
  }
});

// The length of the longest common subsequence, by the plain algorithm.
function common(a: string[], b: string[]): number {
  const t = Array.from({ length: a.length + 1 }, () => Array(b.length + 1).fill(0));
  for (let i = 1; i <= a.length; i++) for (let j = 1; j <= b.length; j++) t[i][j] = a[i - 1] === b[j - 1] ? t[i - 1][j - 1] + 1 : Math.max(t[i - 1][j], t[i][j - 1]);
  return t[a.length][b.length];
}

test("texts without anything in common take bounded time", () => {
  const a = Array.from({ length: 20_000 }, (_, i) => `a${i}\n`).join(""), b = Array.from({ length: 20_000 }, (_, i) => `b${i}\n`).join("");
  assert.equal(side(a, b, "-"), a);
  assert.equal(side(a, b, "+"), b);
});

test("lines far from a change are left out", () => {
  const text = Array.from({ length: 100 }, (_, i) => `${i}\n`).join("");
  const lines = around(diff(text, text.replace("50\n", "x\n")));
  assert.deepEqual(lines.map((l) => l && l.kind + l.text), [null, " 47", " 48", " 49", "-50", "+x", " 51", " 52", " 53", null]);
});

test("changes of two are merged, or are said to be of the same lines", () => {
  const base = "a\nb\nc\nd\ne\nf\n";
  for (const [mine, theirs, want] of [
    ["a\nB\nc\nd\ne\nf\n", "a\nb\nc\nd\nE\nf\n", "a\nB\nc\nd\nE\nf\n"],
    ["a\nB\nc\nd\ne\nf\n", "a\nX\nc\nd\ne\nf\n", null],
    ["a\nB\nc\nd\ne\nf\n", "a\nB\nc\nd\ne\nf\n", "a\nB\nc\nd\ne\nf\n"],
    ["a\nc\nd\ne\nf\n", "a\nb\nc\nd\ne\nf\ng\n", "a\nc\nd\ne\nf\ng\n"],
    ["0\na\nb\nc\nd\ne\nf\n", base, "0\na\nb\nc\nd\ne\nf\n"],
    ["a\nb\nc\nd\ne\nf\nx\n", "a\nb\nc\nd\ne\nf\ny\n", null],
    ["", "a\nb\nc\nd\ne\nF\n", null],
    [base, "", ""],
  ] as const) assert.equal(merge(base, mine, theirs), want, JSON.stringify([mine, theirs]));
});
