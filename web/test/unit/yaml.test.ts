import assert from "node:assert/strict";
import { test } from "node:test";
import { stringOf, toYAML, withoutFields } from "../../src/yaml";

test("managed fields are cut out of the metadata, and of nothing else", () => {
  const data = "apiVersion: v1\ndata:\n  managedFields: |\n    - mine\n  metadata: |\n    metadata:\n      managedFields:\n      - x\nkind: ConfigMap\nmetadata:\n  annotations:\n    a: |\n      managedFields:\n      - y\n";
  const tail = "  name: a\nspec:\n  managedFields:\n  - z\n";
  assert.equal(withoutFields(data + "  managedFields:\n  - apiVersion: v1\n    fieldsV1:\n      f:data:\n        .: {}\n\n    manager: kubectl\n  - manager: x\n" + tail), data + tail);
  assert.equal(withoutFields(data + tail), data + tail);
});

test("values of JSON as YAML", () => {
  assert.equal(
    toYAML({ b: [{ x: 1, y: ["a"] }, "c"], a: { "k/v": "true", t: "two\nlines\n", e: {}, l: [] }, n: null, s: "it: is", "#": " x " }),
    '"#": " x "\na:\n  e: {}\n  k/v: "true"\n  l: []\n  t: |\n    two\n    lines\nb:\n- x: 1\n  "y":\n  - a\n- c\n"n": null\ns: "it: is"\n',
  );
});

test("the text of a key, in each form that the server writes", () => {
  const yaml = `apiVersion: v1
kind: Status
message: 'Operation cannot be fulfilled on deployments.apps "web": the object has
  been modified; it''s so'
metadata: {}
reason: Conflict
plain: a text that
  goes on
quoted: "a\\tb c"
block: |-
  one
    two
`;
  assert.deepEqual(["message", "reason", "plain", "quoted", "block", "none"].map((k) => stringOf(yaml, k)), ['Operation cannot be fulfilled on deployments.apps "web": the object has been modified; it\'s so', "Conflict", "a text that goes on", "a\tb c", "one\n  two", undefined]);
});
