// What the tests of the page share: a browser's page that is used, and what it must never do.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { until } from "./cluster.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** use opens a page in a browser's context, at a URL of keelson dash where there is one. */
export async function use(context, url) {
  context.setDefaultTimeout(8000);
  const page = await context.newPage();
  const complaints = [], foreign = [];
  // The browser itself gives a style to the text that replaces all of an editor, which the policy removes again.
  await page.addInitScript(() => addEventListener("securitypolicyviolation", (e) => !(e.sourceFile === "" && e.target?.className === "editor") && console.error(`violates ${e.violatedDirective}: ${e.sourceFile}:${e.lineNumber}:${e.columnNumber} ${e.target?.outerHTML?.slice(0, 200)}`)));
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && !/status of (4\d\d|500)|WebSocket connection|^Applying inline style/.test(m.text()) && complaints.push(m.text()));
  page.on("pageerror", (e) => complaints.push(String(e)));
  page.on("request", (r) => !r.url().startsWith(new URL(url).origin) && !/^(data|blob):/.test(r.url()) && foreign.push(r.url()));
  const text = (selector) => page.locator(selector).innerText();
  return {
    page, text,
    open: (hash) => page.evaluate((h) => (location.hash = h), hash),
    /** shows waits for a text in what a selector has. */
    shows: (what, selector, want, limit) => until(what, async () => {
      const t = await text(selector);
      if (want instanceof RegExp ? want.test(t) : t.includes(want)) return true;
      throw new Error(JSON.stringify(t.slice(0, 400)));
    }, limit),
    /** accessible fails if axe-core finds a violation in what is shown. */
    async accessible(what) {
      await page.evaluate(axe);
      const found = await page.evaluate(async () => (await globalThis.axe.run(document, { resultTypes: ["violations"] })).violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join("; ")}`));
      assert.deepEqual(found, [], what);
    },
    /** quiet fails if something was loaded from elsewhere, or the page or the browser complained. */
    quiet() {
      assert.deepEqual(foreign, []);
      assert.deepEqual(complaints, []);
    },
  };
}
