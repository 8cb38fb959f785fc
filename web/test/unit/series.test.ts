import assert from "node:assert/strict";
import { test } from "node:test";
import { between, History, quantity, requests } from "../../src/series";

test("quantities of Kubernetes", () => {
  for (const [text, want] of [["250m", 0.25], ["1536Ki", 1572864], ["2", 2], ["1500000n", 0.0015], ["1e3", 1000], ["1.5Gi", 1610612736], ["12E", 12e18], ["3M", 3e6]] as const) assert.ok(Math.abs(quantity(text) - want) < want * 1e-9, text);
  for (const text of ["", "x", "1 Gi", "5Zi", "<b>"]) assert.ok(Number.isNaN(quantity(text)), text);
});

test("a history is bounded, has each time once, and lines that come later", () => {
  const h = new History(3);
  assert.ok(h.push(1, [1]));
  assert.ok(!h.push(1, [2]));
  h.push(2, [2, 20]);
  h.push(3, [3]);
  h.push(4, [4, 40]);
  assert.deepEqual([h.times, h.lines], [[2, 3, 4], [[2, 3, 4], [20, null, 40]]]);
});

const text = (n: number) => `# HELP apiserver_request_duration_seconds apiserver_request_duration_seconds is a name
apiserver_request_duration_seconds_bucket{component="apiserver",verb="GET",le="0.005"} ${8 * n}
apiserver_request_duration_seconds_bucket{component="apiserver",verb="GET",le="0.1"} ${10 * n}
apiserver_request_duration_seconds_bucket{component="apiserver",verb="GET",le="+Inf"} ${10 * n}
apiserver_request_duration_seconds_sum{component="apiserver",verb="GET"} ${0.5 * n}
apiserver_request_duration_seconds_count{component="apiserver",verb="GET"} ${10 * n}
apiserver_request_duration_seconds_sum{verb="POST"} ${0.5 * n}
apiserver_request_duration_seconds_count{verb="POST"} ${10 * n}
apiserver_request_duration_seconds_sum{verb="WATCH"} 9000
apiserver_request_duration_seconds_count{verb="WATCH"} 3
apiserver_request_total{verb="GET"} 77
apiserver_request_duration_seconds_count{verb="GET"} NaN`;

test("requests of the API server, and what happened between two times", () => {
  const a = requests(text(1)), b = requests(text(3));
  assert.deepEqual([a.reads, a.writes, a.seconds], [10, 10, 1]);
  const d = between(a, b, 10)!;
  assert.deepEqual([d.reads, d.writes, d.mean], [2, 2, 0.05]);
  assert.ok(Math.abs(d.slow! - (0.005 + 0.095 * (3.8 / 4))) < 1e-9, String(d.slow));
  assert.equal(between(b, a, 10), null, "the server was started again");
  assert.deepEqual(between(a, a, 10), { reads: 0, writes: 0, mean: null, slow: null });
});
