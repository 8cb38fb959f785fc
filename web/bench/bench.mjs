// Measures the page with 50,000 pods on 5,000 nodes: how long the first picture takes, how soon a change is drawn, what the
// page's own thread does meanwhile (from a trace of the browser), and its memory. NODES, PODS and RUNS change the figures;
// SHOTS=FOLDER writes screenshots, TRACES=FOLDER the browser's traces, for chrome://tracing, and a
// profile of the server meanwhile.
import { readFileSync, writeFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { Cluster, until } from "../test/cluster.mjs";

const nodes = Number(process.env.NODES ?? 5000), pods = Number(process.env.PODS ?? 50_000), runs = Number(process.env.RUNS ?? 5);
const each = 1000, deployments = Math.ceil(pods / each);
const names = ["web", "cart", "search", "checkout", "feed", "ledger", "mail", "auth", "media", "rank"];
const median = (a) => [...a].sort((x, y) => x - y)[a.length >> 1];
const say = (what, value) => console.log(`${what.padEnd(58)} ${value}`);

/** work returns the tasks of the page's own thread in a trace: all, and those that make a frame; in ms. With a first picture so many ms after navigation, those since then. */
function work(trace, first) {
  const events = JSON.parse(trace.toString()).traceEvents;
  // The page's process is the one whose main thread has made the mark.
  const mark = events.find((e) => e.name === "first-picture" || e.name === "bench");
  const from = first === undefined ? 0 : mark.ts - first * 1000;
  const main = (e) => e.pid === mark.pid && e.tid === mark.tid && e.ts + (e.dur ?? 0) >= from;
  const tasks = events.filter((e) => main(e) && e.ph === "X" && e.name === "RunTask").map((e) => ({ ts: e.ts, end: e.ts + e.dur, dur: e.dur / 1000, cpu: (e.tdur ?? e.dur) / 1000 }));
  const begins = events.filter((e) => main(e) && e.name === "Commit").map((e) => e.ts);
  tasks.sort((a, b) => a.ts - b.ts);
  const frames = [];
  let i = 0;
  for (const b of begins.sort((x, y) => x - y)) {
    while (i < tasks.length && tasks[i].end < b) i++;
    if (tasks[i] && tasks[i].ts <= b) frames.push(tasks[i]);
  }
  return { tasks, frames };
}

const longest = (list) => list.reduce((a, t) => (t.dur > a.dur ? t : a), { dur: 0, cpu: 0 });
const share = (list, part) => [...list].map((t) => t.dur).sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * part))] ?? 0;
function report(what, { tasks, frames }) {
  const t = longest(tasks), f = longest(frames);
  say(`${what}: longest task`, `${t.dur.toFixed(1)} ms (processor ${t.cpu.toFixed(1)} ms)`);
  say(`${what}: frame's work, 99 % and longest`, `${share(frames, 0.99).toFixed(1)} ms, ${f.dur.toFixed(1)} ms (processor ${f.cpu.toFixed(1)} ms), of ${frames.length}`);
}

const cluster = await Cluster.start(`--sim-nodes=${nodes}`);
let browser;
try {
  await cluster.kubectl("create", "namespace", "shop");
  const list = Array.from({ length: deployments }, (_, i) => {
    const name = names[i % names.length] + (i < names.length ? "" : "-" + Math.floor(i / names.length)), labels = { app: name };
    return { apiVersion: "apps/v1", kind: "Deployment", metadata: { name, namespace: "shop" }, spec: { replicas: Math.min(each, pods - i * each), selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers: [{ name: "a", image: "a" }] } } } };
  });
  const began = Date.now();
  await cluster.kubectl("create", "-f", "-", { apiVersion: "v1", kind: "List", items: list });
  await until("the pods are ready", async () => {
    const ready = (await cluster.kubectl("get", "deployments", "-n", "shop", "-o", "jsonpath={.items[*].status.readyReplicas}")).split(" ").reduce((a, b) => a + Number(b), 0);
    if (ready < pods) throw new Error(`${ready} are ready`);
    return true;
  }, 900_000, 2000);
  say("pods ready", `${pods} on ${nodes} nodes after ${((Date.now() - began) / 1000).toFixed(0)} s`);

  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split(" ") });
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light" });
  const url = await cluster.dash();
  let page = await context.newPage();
  await page.goto(url);
  const address = page.url();
  const system = await browser.newBrowserCDPSession();
  /** rest waits until the browser is at rest: with a new tab it makes the pages of its own menus, for half a second of processor time. */
  const rest = async () => {
    const spent = async () => (await system.send("SystemInfo.getProcessInfo")).processInfo.reduce((a, p) => a + p.cpuTime, 0);
    for (let was = await spent(), still = 0, end = Date.now() + 20_000; still < 3 && Date.now() < end; ) {
      await new Promise((r) => setTimeout(r, 200));
      const now = await spent();
      still = now - was < 0.01 ? still + 1 : 0;
      was = now;
    }
  };
  const categories = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "blink.user_timing", "cc"];
  // The page says by itself that it is there: asking it in each frame would be the work of its thread.
  const tell = () => new PerformanceObserver((l) => {
    const m = l.getEntriesByName("first-picture")[0];
    if (m) console.debug("first-picture", JSON.stringify({ ms: m.startTime, ...m.detail }));
  }).observe({ type: "mark", buffered: true });
  const said = (message) => message.text().startsWith("first-picture ");
  const again = async (traced) => {
    await page.close();
    page = await context.newPage();
    await page.addInitScript(tell);
    await rest();
    if (traced) await browser.startTracing(page, { categories });
    const [message] = await Promise.all([page.waitForEvent("console", { predicate: said, timeout: 60_000 }), page.goto(address)]);
    const f = JSON.parse(message.text().slice("first-picture ".length));
    if (f.pods !== pods || f.nodes !== nodes) throw new Error(`the first picture has ${f.pods} pods and ${f.nodes} nodes`);
    return f.ms;
  };
  const times = [], most = [];
  for (let i = 0; i < runs; i++) times.push(await again(false));
  say("first picture after navigation, median and slowest", `${median(times).toFixed(0)} ms, ${Math.max(...times).toFixed(0)} ms, of ${runs}`);
  const profile = process.env.TRACES && cluster.raw(`/debug/pprof/profile?seconds=${runs * 3}`);
  for (let i = 0; i < runs; i++) {
    const ms = await again(true);
    await page.waitForTimeout(1000);
    const trace = await browser.stopTracing(), w = work(trace, ms);
    if (process.env.TRACES) writeFileSync(`${process.env.TRACES}/first-${i}.json`, trace);
    most.push(longest(w.tasks));
    if (i === runs - 1) report("first picture", w);
  }
  if (profile) writeFileSync(process.env.TRACES + "/server.pprof", await profile);
  say("first picture: longest task of each round", most.map((t) => `${t.dur.toFixed(0)} ms (processor ${t.cpu.toFixed(0)} ms)`).join(", "));
  if (process.env.SHOTS) {
    await page.screenshot({ path: process.env.SHOTS + "/cluster.png" });
    await page.emulateMedia({ colorScheme: "dark" });
    await page.waitForTimeout(500);
    await page.screenshot({ path: process.env.SHOTS + "/cluster-dark.png" });
    await page.emulateMedia({ colorScheme: "light" });
  }

  const memory = async () => {
    await page.requestGC();
    const heap = await page.evaluate(() => performance.memory.usedJSHeapSize / 2 ** 20);
    let rss = 0;
    for (const p of (await system.send("SystemInfo.getProcessInfo")).processInfo) {
      if (p.type === "renderer") rss = Math.max(rss, Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${p.id}/status`, "utf8"))[1]) / 1024);
    }
    return `${heap.toFixed(1)} MB heap of the page's thread, ${rss.toFixed(0)} MB resident in its process`;
  };
  say("memory with the picture", await memory());

  // One change after the other: from the write to its drawing, as the page measures it.
  const drawn = () => page.locator("[data-drawn]").getAttribute("data-drawn", { timeout: 100 }).catch(() => "0");
  const pod = (await cluster.kubectl("get", "pods", "-n", "shop", "-o", "name", "-l", "app=web")).split("\n")[0];
  const lags = [];
  for (let i = 0; i < 15; i++) {
    const was = await drawn();
    await cluster.kubectl("annotate", "-n", "shop", pod, "--overwrite", `n=${i}`);
    await until("it is drawn", async () => (await drawn()) !== was);
    lags.push(Number(/after ([\d,]+) ms/.exec(await page.locator("[data-drawn]").innerText())[1].replace(",", "")));
  }
  say("a change drawn after its write, median and slowest", `${median(lags)} ms, ${Math.max(...lags)} ms, of ${lags.length}`);

  const box = await page.locator("canvas.over").boundingBox();
  const use = async (seconds) => {
    const end = Date.now() + seconds * 1000;
    await page.evaluate(() => performance.mark("bench"));
    for (let i = 0; Date.now() < end; i++) {
      const x = box.x + box.width / 2 + Math.sin(i / 7) * 300, y = box.y + 420 + Math.cos(i / 5) * 150;
      await page.mouse.move(x, y);
      if (i % 6 === 0) await page.mouse.wheel(0, i % 60 < 30 ? -240 : 240);
      if (i % 20 === 10) await page.mouse.down();
      if (i % 20 === 19) await page.mouse.up();
      await page.waitForTimeout(16);
    }
    await page.mouse.up();
    await page.focus("canvas.over");
    await page.keyboard.press("0");
  };
  await browser.startTracing(page, { categories });
  await use(5);
  report("zooming, moving and pointing", work(await browser.stopTracing()));

  await browser.startTracing(page, { categories });
  const churn = (async () => {
    for (const n of [2000, 500, 1500, each]) {
      await cluster.kubectl("scale", "-n", "shop", "deployment", ...names.slice(0, Math.min(4, deployments)), `--replicas=${n}`);
      await new Promise((r) => setTimeout(r, 2000));
    }
  })();
  await use(10);
  await churn;
  report("thousands of changes a second, and the same", work(await browser.stopTracing()));
  if (process.env.SHOTS) await page.screenshot({ path: process.env.SHOTS + "/busy.png" });
  await until("all is quiet", async () => (await page.locator(".side b").first().innerText()).replaceAll(",", "") === String(pods), 120_000);
  say("memory after it", await memory());
} finally {
  await browser?.close();
  await cluster.stop();
}
