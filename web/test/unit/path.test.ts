import assert from "node:assert/strict";
import { test } from "node:test";
import { path, segment } from "../../src/path";

test("paths of objects", () => {
  const pods = { group: "", version: "v1", plural: "pods" }, deployments = { group: "apps", version: "v1", plural: "deployments" };
  assert.equal(path(pods), "/api/v1/pods");
  assert.equal(path(pods, "a", "b"), "/api/v1/namespaces/a/pods/b");
  assert.equal(path(deployments, "a", "b"), "/apis/apps/v1/namespaces/a/deployments/b");
  assert.equal(path(deployments, "", "a/../b?c#d%"), "/apis/apps/v1/deployments/a%2F..%2Fb%3Fc%23d%25");
});

test("no name leads to another object", () => {
  const base = "http://x/api/v1/namespaces/a/pods/";
  for (const name of ["..", ".", ""]) assert.throws(() => segment(name), /is not the name of anything/);
  for (const name of ["...", "a/..", "%2e%2e", "..%2f", "a\\..\\b", "\t..", ".. "]) {
    assert.ok(new URL(base + segment(name)).pathname.startsWith("/api/v1/namespaces/a/pods/"), name);
  }
});
