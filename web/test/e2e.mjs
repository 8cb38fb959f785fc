// The page in a browser, against a real cluster with simulated nodes and keelson dash before it.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browse, Cluster, until } from "./cluster.mjs";
import { use } from "./page.mjs";

let cluster, browser, page, url, open, text, shows, accessible, quiet, loaded = 0;
const answers = [];

before(async () => {
  cluster = await Cluster.start("--sim-nodes=3");
  url = await cluster.dash();
  browser = await browse();
  ({ page, open, text, shows, accessible, quiet } = await use(browser.context, url));
  const cdp = await browser.context.newCDPSession(page);
  await cdp.send("Network.enable");
  cdp.on("Network.loadingFinished", (e) => (loaded += e.encodedDataLength));
  await cluster.kubectl("create", "namespace", "shop");
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

test("the picture shows the cluster, and each change as it happens", async () => {
  await page.goto(url);
  await shows("the nodes", ".side", /Nodes\s+3/);
  await page.waitForLoadState("networkidle", { timeout: 2000 }).catch(() => {}); // the stream goes on
  assert.ok(loaded > 20_000 && loaded < 300_000, `the first load takes ${loaded} bytes`);
  await cluster.kubectl("create", "deployment", "web", "-n", "shop", "--image=keelson.local/demo", "--replicas=6");
  await shows("the pods", ".legend", /Ready\s+6/);
  await shows("who did it", ".writes", /(deployment|replicaset)-controller/);
  assert.match(await text(".writes"), /drawn after \d+ ms/);
});

test("a change is drawn within 100 ms", async () => {
  // The slowest of what is written to a pod, one write after the other.
  const pod = (await cluster.kubectl("get", "pods", "-n", "shop", "-o", "name")).split("\n")[0];
  const seen = [];
  for (let i = 0; i < 5; i++) {
    const drawn = () => page.locator("[data-drawn]").getAttribute("data-drawn");
    const was = await drawn();
    await cluster.kubectl("annotate", "-n", "shop", pod, "--overwrite", `n=${i}`);
    await until("it is drawn", async () => (await drawn()) !== was);
    seen.push(Number(/drawn after (\d+) ms/.exec(await text(".writes"))[1]));
  }
  seen.sort((a, b) => a - b);
  assert.ok(seen[2] < 100, `drawn after ${seen} ms`);
});

test("the picture is used with the keyboard, and says what is under the mouse", async () => {
  await page.keyboard.press("Escape");
  await page.focus("canvas.over");
  await page.keyboard.press("ArrowRight");
  await shows("the first node", ".picked", "sim-0");
  await page.keyboard.press("ArrowRight");
  await shows("the next node", ".picked", "sim-1");
  await page.keyboard.press("Enter");
  await shows("its first pod", ".picked", /shop\/web-[\s\S]*on sim-1/);
  const b = await page.locator("canvas.over").boundingBox();
  await until("a tip", async () => {
    await page.mouse.move(b.x + 100, b.y + 250);
    return /sim-0/.test(await text(".tip"));
  });
  await page.mouse.wheel(0, -300);
  await page.keyboard.press("0");
  await page.keyboard.press("Enter");
  await shows("the pod's page", ".detail .head > h2", /^web-/);
  await page.goBack();
  await page.locator("main.picture:not([hidden])").waitFor();
});

test("pods are found", async () => {
  await page.keyboard.press("/");
  await page.keyboard.type("shop/web sim-2");
  await shows("how many", ".find output", /^[1-3] found$/);
  await page.keyboard.press("Escape");
  await until("nothing is looked for", async () => (await page.locator(".find output").count()) === 0);
});

test("the picture is grouped by what is chosen, which the address keeps", async () => {
  const by = page.getByLabel("Group by");
  await cluster.kubectl("label", "node", "sim-0", "sim-1", "example.com/nodepool=blue");
  await by.focus();
  await until("the label is offered", async () => (await by.locator("option").allInnerTexts()).includes("example.com/nodepool"));
  const groups = async () => {
    await page.getByRole("button", { name: "Table" }).click();
    const rows = await page.locator(".stage .rows tbody tr").evaluateAll((all) => all.map((r) => [...r.children].map((c) => c.innerText)));
    await page.getByRole("button", { name: "Picture", exact: true }).click();
    return rows;
  };
  await by.selectOption("label:example.com/nodepool");
  assert.match(page.url(), /#\/\?by=label%3Aexample\.com%2Fnodepool$/);
  await until("the nodes' labels", async () => {
    const rows = await groups();
    return rows.length === 3 && rows.every(([node, pool]) => pool === (node === "sim-2" ? "" : "blue"));
  });
  await by.selectOption("namespace");
  await until("the namespaces", async () => (await groups()).some(([ns, ready]) => ns === "shop" && ready === "6"));
  await page.focus("canvas.over");
  await page.keyboard.press("Escape"); // from the pod that is selected to its group
  await shows("a namespace", ".picked", /Namespace\s+\S+\s+\d+ pods/);
  await page.keyboard.press("Enter");
  await shows("a pod of it", ".picked", /Pod\s+\S+\/\S+/);
  await accessible("the picture by namespace");
  await by.selectOption("owner");
  await until("the owners", async () => (await groups()).some(([owner, ready]) => owner === "Deployment shop/web" && ready === "6"));
  // The address opens it as it was, and the way back leads to the picture before.
  const there = page.url();
  await page.getByRole("link", { name: "Objects", exact: true }).click();
  await page.getByRole("link", { name: "Cluster", exact: true }).click();
  assert.equal(page.url(), there);
  await page.reload();
  await until("the owners again", async () => (await groups()).some(([owner]) => owner === "Deployment shop/web"));
  assert.equal(await by.inputValue(), "owner");
  await cluster.kubectl("scale", "-n", "shop", "deployment/web", "--replicas=7");
  await until("how many there are now", async () => (await groups()).find(([owner]) => owner === "Deployment shop/web")?.[1] === "7");
  await cluster.kubectl("scale", "-n", "shop", "deployment/web", "--replicas=6");
  await by.selectOption("zone");
  assert.match(page.url(), /#\/$/);
  await shows("the pods", ".legend", /Ready\s+6/);
});

test("the table has what the picture has", async () => {
  await page.getByRole("button", { name: "Table" }).click();
  await shows("the nodes", ".stage .rows", /sim-0[\s\S]*sim-1[\s\S]*sim-2/);
  const ready = await page.locator(".stage .rows tbody tr td:nth-child(4)").allInnerTexts();
  assert.equal(ready.reduce((a, b) => a + Number(b), 0), 6);
  await accessible("the table of nodes");
  await page.getByRole("button", { name: "Picture", exact: true }).click();
  await accessible("the picture");
});

test("tables of objects follow the server", async () => {
  await page.keyboard.press("Control+k");
  await page.keyboard.type("po shop");
  await page.keyboard.press("Enter");
  const rows = page.locator(".list tbody tr");
  await until("6 pods", async () => (await rows.count()) === 6);
  await cluster.kubectl("scale", "-n", "shop", "deployment/web", "--replicas=8");
  await until("8 pods", async () => (await rows.count()) === 8);
  await page.locator(".list tbody a").first().focus();
  const first = await page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press("ArrowDown");
  assert.notEqual(await page.evaluate(() => document.activeElement.textContent), first);
  await page.keyboard.press("/");
  await page.keyboard.type(first);
  await until("one is left", async () => (await rows.count()) === 1);
  await page.fill("#filter", "app=none");
  await shows("none", ".list", "No pods in shop");
  await accessible("a table");
  await open("#/objects/core/v1/nosuchthings");
  await shows("what there is not", "main:not([hidden])", "no such resource");
});

test("YAML is edited: reviewed by the server, applied, refused in the server's words", async () => {
  await open("#/object/apps/v1/deployments/shop/web");
  await shows("the YAML", ".yaml pre", "replicas: 8");
  assert.doesNotMatch(await text(".yaml pre"), /managedFields/);
  const edit = async (change) => {
    await page.getByRole("button", { name: "Edit" }).click();
    const content = page.locator(".cm-content");
    await content.waitFor();
    const now = await text(".yaml .cm-content");
    await content.click();
    await page.keyboard.press("Control+a");
    await page.keyboard.insertText(change(now));
    await page.keyboard.press("Control+Enter");
  };
  // Lines that the editor does not show are not in its text, so the test has the object from the server.
  const yaml = await text(".yaml pre");
  await edit(() => yaml.replace("replicas: 8", "replicas: 5"));
  await shows("the difference", ".diff", /replicas: 8[\s\S]*replicas: 5/);
  assert.equal((await cluster.kubectl("get", "-n", "shop", "deployment/web", "-o", "jsonpath={.spec.replicas}")).trim(), "8", "a review changes nothing");
  await page.getByRole("button", { name: "Apply" }).click();
  await until("it is applied", async () => (await cluster.kubectl("get", "-n", "shop", "deployment/web", "-o", "jsonpath={.spec.replicas}")).trim() === "5");
  await cluster.kubectl("rollout", "status", "-n", "shop", "deployment/web");
  await until("its last status", async () => {
    await open("#/object/apps/v1/deployments/shop/web/events");
    await open("#/object/apps/v1/deployments/shop/web");
    return (await text(".yaml pre")).includes(`resourceVersion: "${(await cluster.kubectl("get", "-n", "shop", "deployment/web", "-o", "jsonpath={.metadata.resourceVersion}")).trim()}"`);
  });
  const applied = await text(".yaml pre");
  await edit(() => applied.replace("replicas: 5", "replicas: -1"));
  await shows("the server's message", ".yaml [role=alert]", 'Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0');
  await accessible("an editor with an error");
  await page.getByRole("button", { name: "Cancel" }).click();
  await cluster.kubectl("annotate", "-n", "shop", "deployment/web", "other=yes");
  await edit(() => applied.replace("replicas: 5", "replicas: 4"));
  await shows("the conflict", ".yaml [role=alert]", 'Operation cannot be fulfilled on deployments.apps "web": the object has been modified; please apply your changes to the latest version and try again');
  await page.getByRole("button", { name: "Make my changes in it" }).click();
  await shows("the difference to what it is now", ".diff", /replicas: 5[\s\S]*replicas: 4/);
  await page.getByRole("button", { name: "Apply" }).click();
  await shows("both changes", ".yaml pre", /other:[\s\S]*replicas: 4/);
});

test("the data of Secrets is read when it is asked for", async () => {
  const secret = Buffer.from("hunter2").toString("base64");
  await cluster.kubectl("apply", "-f", "-", { apiVersion: "v1", kind: "Secret", metadata: { name: "s", namespace: "shop" }, data: { password: secret } });
  const keep = (r) => r.body().then((b) => answers.push(b.toString()), () => {});
  page.on("response", keep);
  await open("#/object/core/v1/secrets/shop/s");
  await shows("its metadata", ".yaml pre", "name: s");
  assert.doesNotMatch(await text(".yaml pre"), new RegExp(secret));
  await page.getByRole("button", { name: "Show the data" }).click();
  await shows("its data", ".yaml pre", `password: ${secret}`);
  page.off("response", keep);
  assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage })), "{}");
});

test("what an object's author wrote is text", async () => {
  const evil = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>';
  await cluster.kubectl("apply", "-f", "-", { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "evil", namespace: "shop", annotations: { "a.b/c": evil } }, data: { key: evil } });
  await cluster.kubectl("create", "-f", "-", { apiVersion: "v1", kind: "Event", metadata: { name: "e", namespace: "shop" }, involvedObject: { kind: "ConfigMap", namespace: "shop", name: "evil", apiVersion: "v1" }, message: evil, reason: evil.slice(0, 60), type: "Warning", source: { component: evil } });
  for (const tab of ["", "/changes", "/related"]) {
    await open("#/object/core/v1/configmaps/shop/evil" + tab);
    await shows(tab || "the YAML", ".detail .tab", tab === "/related" ? "evil" : "onerror");
  }
  await open("#/object/core/v1/configmaps/shop/evil%2F..%2Fsecrets");
  await shows("a name with slashes", ".detail", /not found|invalid|unable/i);
  await open("#/object/core/v1/configmaps/shop/..");
  await shows("a name that is a step", ".detail", "is not the name of anything");
  await open("#/objects/core/v1/events");
  await shows("the event", ".list", "onerror");
  assert.equal(await page.locator("img, #root script").count(), 0);
  assert.notEqual(await page.title(), "owned");
});

test("events, logs, relations, the trace and the changes of an object", async () => {
  const pod = (await cluster.kubectl("get", "pods", "-n", "shop", "-o", "jsonpath={.items[0].metadata.name}")).trim();
  await open(`#/object/core/v1/pods/shop/${pod}/events`);
  await shows("the scheduler's event", ".detail", "Successfully assigned shop/" + pod);
  await open(`#/object/core/v1/pods/shop/${pod}/logs`);
  await shows("why there are no logs", ".logs pre", /is simulated: node sim-\d runs no containers, so there are no logs/);
  await shows("that it has ended", ".logs", "The log has ended");
  await accessible("logs");
  await open(`#/object/core/v1/pods/shop/${pod}/related`);
  await shows("its owners and its node", ".tree", new RegExp(`Deployment web[\\s\\S]*ReplicaSet web-[\\s\\S]*Pod ${pod}[\\s\\S]*on sim-`));
  await accessible("relations");
  await open("#/object/apps/v1/deployments/shop/web/related");
  await until("its pods", async () => (await page.locator(".tree .leaf").allInnerTexts()).filter((t) => /^Pod web-/.test(t)).length === 4);
  await open("#/object/apps/v1/deployments/shop/web/trace");
  await shows("the steps", ".timeline", /deployments web[\s\S]*create[\s\S]*replicasets web-[\s\S]*deployment-controller[\s\S]*pods web-[\s\S]*scheduler/);
  await until("bars", async () => (await page.locator(".timeline .line i").count()) > 0);
  await accessible("the trace");
  await open("#/object/apps/v1/deployments/shop/web/changes");
  await shows("its changes", ".changes", /by kubernetes-admin/);
  await accessible("changes");
  await open("#/changes?from=10m");
  await shows("all changes", ".changes", /shop\/evil created[\s\S]*deployments shop\/web/);
  await page.locator(".changes summary", { hasText: "shop/evil" }).click();
  await shows("what it became", ".changes .diff", "kind: ConfigMap");
});

test("an object's page says what is wrong with it, as long as it is", async () => {
  await cluster.kubectl("create", "-f", "-", { apiVersion: "v1", kind: "Pod", metadata: { name: "gated", namespace: "shop" }, spec: { schedulingGates: [{ name: "example.com/wait" }], containers: [{ name: "a", image: "a" }] } });
  await open("#/object/core/v1/pods/shop/gated");
  await shows("why it has no node", ".detail .head", "SchedulingGated: Scheduling is blocked due to non-empty scheduling gates");
  await accessible("a pod that waits");
  await cluster.kubectl("patch", "pod", "-n", "shop", "gated", "--type=json", "-p", '[{"op":"remove","path":"/spec/schedulingGates"}]');
  await shows("its node, and nothing wrong", ".detail .head", /^(?![\s\S]*SchedulingGated)[\s\S]*Ready, made .* ago on sim-\d/);
  await cluster.kubectl("delete", "pod", "-n", "shop", "gated", "--now");
});

test("a trace is followed until its object has come to rest", async () => {
  await open("#/object/apps/v1/deployments/shop/web/trace");
  await shows("that nothing is done", ".detail [role=status]", "It has come to rest.");
  // No node has that label, until one gets it.
  await cluster.kubectl("create", "-f", "-", { apiVersion: "v1", kind: "Pod", metadata: { name: "waits", namespace: "shop" }, spec: { nodeSelector: { wanted: "yes" }, containers: [{ name: "a", image: "a" }] } });
  await open("#/object/core/v1/pods/shop/waits/trace");
  await shows("what it waits for", ".timeline .waits", /pod\/waits[\s\S]*waits for/);
  await shows("who could change it", ".findings", /pod\/waits waits for[\s\S]*Who could change it/);
  await shows("that it is followed", ".detail [role=status]", "Followed until it waits for nothing");
  const bars = () => page.locator(".timeline tbody tr").count(), before = await bars();
  const since = await page.locator(".timeline .waits td.number").last().innerText();
  await until("time goes on", async () => (await page.locator(".timeline .waits td.number").last().innerText()) !== since);
  await accessible("a trace that is followed");
  await cluster.kubectl("label", "node", "sim-1", "wanted=yes");
  await shows("its way to the node", ".timeline", /binding[\s\S]*sim-1/);
  await shows("that it rests", ".detail [role=status]", "It has come to rest.");
  assert.ok((await bars()) > before, "the line has grown");
  assert.equal(await page.locator(".timeline .waits").count(), 0);
  await page.getByRole("button", { name: "Follow" }).click();
  await shows("that it is followed again", ".detail [role=status]", "Followed");
  await cluster.kubectl("annotate", "-n", "shop", "pod/waits", "again=yes");
  await shows("the end of it", ".detail [role=status]", "It has come to rest.");
  await cluster.kubectl("delete", "-n", "shop", "pod/waits");
});

test("charts of a node, a pod and the API server", async () => {
  await open("#/object/core/v1/nodes/-/sim-0/usage");
  await shows("what there is for pods", ".chart:first-of-type", /CPU\s+of [\d.]+ cores for pods/);
  await page.locator(".chart canvas").first().waitFor();
  const table = async (n) => {
    const chart = page.locator(".chart").nth(n);
    for (const closed of await chart.locator("details:not([open]) summary").all()) await closed.click();
    return chart.locator("tbody tr").evaluateAll((all) => all.map((r) => [...r.children].map((c) => c.innerText)));
  };
  await until("the memory as a table", async () => (await table(1)).some(([time, used]) => /^\d\d:\d\d:\d\d$/.test(time) && /^(0 B|[\d.]+ [KMG]iB)$/.test(used)));
  await accessible("charts of a node");
  const pod = (await cluster.kubectl("get", "pods", "-n", "shop", "-o", "jsonpath={.items[0].metadata.name}")).trim();
  await open(`#/object/core/v1/pods/shop/${pod}/usage`);
  await until("a pod's CPU", async () => (await table(0)).length > 0);
  await page.keyboard.press("g");
  await page.keyboard.press("s");
  await shows("the API server", "main:not([hidden]) h2", "API server");
  await until("two samples", async () => (await table(0)).length > 1);
  const [, reads] = (await table(0))[0];
  assert.match(reads, /^[\d,.]+\/s$/);
  assert.match((await table(1))[0][1], /^([\d.]+ m?s|–)$/);
  await page.locator(".plot").first().focus();
  await page.keyboard.press("Home");
  const times = (await table(0)).map(([t]) => t);
  await shows("the first sample", ".chart:first-of-type output", times.at(-1));
  await page.keyboard.press("ArrowRight");
  await shows("the next", ".chart:first-of-type output", times.at(-2));
  await accessible("charts of the API server");
});

test("a terminal in a container", async () => {
  const pod = (await cluster.kubectl("get", "pods", "-n", "shop", "-o", "jsonpath={.items[0].metadata.name}")).trim();
  await open(`#/object/core/v1/pods/shop/${pod}/terminal`);
  await page.getByRole("button", { name: "Run" }).click();
  await shows("why it is refused", ".terminal [role=status]", /simulated: it has no agent|has ended|connection/);
  // Simulated nodes run no commands: from here on, the other end is the test's.
  const got = [];
  let socket;
  await page.routeWebSocket(/\/exec\?/, (ws) => {
    socket = ws;
    ws.onMessage((m) => {
      const data = Buffer.from(m);
      got.push([data[0], data.subarray(1).toString(), ws.url()]);
      if (data[0] === 4) ws.send(Buffer.concat([Buffer.from([1]), Buffer.from("é$ \u001b[38;2;200;10;10mred\u001b[0m ")]));
      if (data[0] === 0) ws.send(Buffer.concat([Buffer.from([1]), data.subarray(1)]));
    });
  });
  await page.getByLabel("Command").fill("/bin/demo shell");
  await page.getByRole("button", { name: "Run" }).click();
  await shows("the prompt", ".screen", "$ red");
  assert.equal(got[0][0], 4);
  assert.ok(JSON.parse(got[0][1]).Width > 40);
  assert.match(got[0][2], /command=%2Fbin%2Fdemo&command=shell/);
  await page.keyboard.type("echo h");
  await shows("the echo", ".screen", "é$ red echo h");
  assert.equal(got.filter(([c]) => c === 0).map(([, t]) => t).join(""), "echo h");
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector(".xterm-rows")).fontFamily.includes("IBM Plex Mono")), true, "xterm's style sheets are adopted");
  assert.equal(await page.evaluate(() => getComputedStyle([...document.querySelectorAll(".xterm-rows span")].find((e) => e.textContent === "red")).color), "rgb(200, 10, 10)");
  await accessible("a terminal");
  // Tab is the command's, and the keyboard is not caught for that.
  const typed = () => got.filter(([c]) => c === 0).map(([, t]) => t).join("");
  await page.keyboard.press("Tab");
  await until("Tab comes to the command", () => typed() === "echo h\t");
  assert.equal(await page.evaluate(() => document.getElementById(document.activeElement.getAttribute("aria-describedby")).textContent), "Shift Tab leaves the terminal");
  await page.keyboard.press("Shift+Tab");
  await page.getByRole("button", { name: "End" }).and(page.locator(":focus")).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.closest(".screen") !== null), true, "Tab leads into the terminal again");
  assert.equal(typed(), "echo h\t");
  socket.send(Buffer.concat([Buffer.from([3]), Buffer.from('{"status":"Failure","message":"command terminated with exit code 3"}')]));
  socket.close();
  await shows("how it ended", ".terminal [role=status]", "command terminated with exit code 3");
});

test("the past: the picture, tables and objects as they were, and what has changed since", async () => {
  await open("#/object/apps/v1/deployments/shop/web/changes");
  await shows("its changes", ".changes", "Go there");
  const at = await cluster.kubectl("get", "-n", "shop", "deployment/web", "-o", "jsonpath={.metadata.resourceVersion}");
  await cluster.kubectl("delete", "-n", "shop", "deployment/web");
  await cluster.kubectl("wait", "-n", "shop", "--for=delete", "pods", "--all", "--timeout=30s");
  await page.locator(".changes .link").last().click();
  await shows("that it is the past", ".time .label", `Revision ${at.trim()}`);
  await open("#/objects/core/v1/pods");
  await until("the pods that there were", async () => (await page.locator(".list tbody tr").count()) === 4);
  await open("#/object/apps/v1/deployments/shop/web");
  await shows("the object that there was", ".yaml pre", "replicas: 4");
  assert.equal(await page.getByRole("button", { name: "Edit" }).count(), 0);
  await open("#/");
  await shows("the picture as it was", ".legend", /Ready\s+4/);
  await accessible("the past");
  await page.getByRole("link", { name: "What changed since", exact: true }).click();
  await shows("the deletion", ".changes", /deployments shop\/web deleted/);
  await page.getByRole("button", { name: "Back to now" }).click();
  await open("#/");
  await shows("now", ".legend", /Ready\s+0/);
  await page.focus("#moment");
  await page.keyboard.press("Home");
  await shows("the beginning", ".time .label", /ago/);
  await page.keyboard.press("End");
  await shows("now again", ".time .label", "Now");
});

test("a user sees what he may, and the server's message where he may not", async () => {
  await cluster.kubectl("create", "serviceaccount", "dev", "-n", "shop");
  await cluster.kubectl("create", "rolebinding", "dev", "-n", "shop", "--clusterrole=view", "--serviceaccount=shop:dev");
  await cluster.kubectl("create", "clusterrolebinding", "dev-dash", "--clusterrole=keelson:dash", "--serviceaccount=shop:dev");
  await cluster.kubectl("create", "deployment", "mine", "-n", "shop", "--image=x", "--replicas=2");
  const token = (await cluster.kubectl("create", "token", "dev", "-n", "shop")).trim();
  const config = JSON.parse(await cluster.kubectl("config", "view", "--raw", "-o", "json"));
  config.users[0].user = { token };
  const file = join(cluster.dir, "dev.kubeconfig");
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
  const other = await browser.context.newPage();
  await other.goto(await cluster.dash(file));
  await until("the refusal", async () => /may list neither nodes nor pods/.test(await other.locator(".state").innerText()));
  await other.getByLabel("Namespace").pressSequentially("shop");
  await other.getByLabel("Namespace").press("Enter");
  await until("his pods", async () => /Ready\s+2/.test(await other.locator(".legend").innerText()));
  await other.evaluate(() => (location.hash = "#/objects/core/v1/secrets"));
  await until("no secrets", async () => /secrets is forbidden: User "system:serviceaccount:shop:dev" cannot list resource "secrets"/.test(await other.locator(".list [role=alert]").innerText()));
  await other.close();
});

test("another origin gets nothing, not even in a browser that has the cookie", async () => {
  // Cookies are shared by all ports of a host, so this site has them.
  const site = createServer((_, res) => res.setHeader("Content-Type", "text/html").end("<!doctype html><title>other</title>")).listen(0, "127.0.0.1");
  await once(site, "listening");
  const other = await browser.context.newPage();
  await other.goto(`http://127.0.0.1:${site.address().port}/`);
  const pod = (await cluster.kubectl("get", "pods", "-n", "shop", "-o", "jsonpath={.items[0].metadata.name}")).trim();
  const got = await other.evaluate(async ([at, pod]) => {
    const socket = (path) => new Promise((resolve) => {
      const s = new WebSocket(at.replace("http", "ws") + path, ["v5.channel.k8s.io"]);
      s.onopen = () => resolve("open");
      s.onclose = (e) => resolve(`closed ${e.code}`);
    });
    const read = (path, init) => fetch(at + path, { credentials: "include", ...init }).then((r) => r.text(), (e) => e.name);
    const frame = (path) => new Promise((resolve) => {
      const f = document.createElement("iframe");
      f.onload = () => setTimeout(() => {
        let seen;
        try {
          seen = f.contentDocument?.body?.innerText ?? "nothing";
        } catch {
          seen = "another origin";
        }
        resolve([seen, frames.length && f.contentWindow.length]);
      }, 100);
      f.src = at + path;
      document.body.append(f);
    });
    const exec = `/api/v1/namespaces/shop/pods/${pod}/exec?command=sh&stdin=true&stdout=true&tty=true`;
    return {
      exec: await socket(exec), watch: await socket("/api/v1/pods?watch=true"), stream: await read("/dash/stream"), secrets: await read("/api/v1/secrets"), metrics: await read("/metrics"),
      opaque: await fetch(at + "/api/v1/namespaces", { method: "POST", mode: "no-cors", credentials: "include", headers: { "Content-Type": "text/plain" }, body: '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"owned"}}' }).then((r) => r.type, (e) => e.name),
      page: await frame("/dash/"), api: await frame("/api/v1/namespaces"),
    };
  }, [new URL(url).origin, pod]);
  assert.deepEqual([got.exec, got.watch, got.stream, got.secrets, got.metrics], ["closed 1006", "closed 1006", "TypeError", "TypeError", "TypeError"]);
  assert.doesNotMatch(await cluster.kubectl("get", "namespaces", "-o", "name"), /owned/);
  // A browser shows its own page in place of what may be in no frame.
  for (const frame of other.frames().slice(1)) assert.doesNotMatch(await frame.content(), /Keelson|NamespaceList/, JSON.stringify(got));
  await other.close();
  site.close();
});

test("what names and labels have is text, and the past is that of the rights of then", async () => {
  const evil = "<img/src=x>";
  await cluster.kubectl("create", "-f", "-", { apiVersion: "v1", kind: "Pod", metadata: { generateName: "evil-", namespace: "shop", finalizers: ["example.com/keep"], annotations: { x: evil + "\u001b]0;owned\u0007\u202e" }, ownerReferences: [{ apiVersion: "v1", kind: evil, name: evil, uid: evil, controller: true }] }, spec: { containers: [{ name: "a", image: "a" }] } });
  await open("#/?by=owner");
  await page.getByRole("button", { name: "Table" }).click();
  await shows("the owner", ".stage .rows", `${evil} shop/${evil}`);
  await open("#/?by=" + encodeURIComponent('label:"><img src=x>'));
  await shows("the refusal of a label that is none", ".time", "nodeLabel");
  assert.equal(await page.locator("img").count(), 0);
  await open("#/");
  await page.getByRole("button", { name: "Picture", exact: true }).click();
  await shows("the picture again", ".legend", /Ready\s+\d/);
  // dev may list pods in shop for a while: what was before is refused.
  const early = await cluster.kubectl("get", "namespace", "shop", "-o", "jsonpath={.metadata.resourceVersion}");
  const other = await browser.context.newPage();
  await other.goto(await cluster.dash(join(cluster.dir, "dev.kubeconfig")));
  await other.getByLabel("Namespace").waitFor();
  const ask = (path) => other.evaluate((p) => fetch(p).then(async (r) => [r.status, await r.text()]), path);
  const [code, message] = await ask(`/dash/stream?namespace=shop&at=${early.trim()}`);
  assert.equal(code, 403, message);
  assert.match(message, /may list neither nodes nor pods in namespace shop, or may since a moment after the one asked for/);
  assert.deepEqual((await Promise.all(["/metrics", "/apis/metrics.k8s.io/v1beta1/nodes/sim-0", "/dash/stream?nodeLabel=example.com%2Fnodepool"].map(ask))).map(([c]) => c), [403, 403, 403]);
  await other.evaluate(() => (location.hash = "#/server"));
  await until("the refusal of the metrics", async () => /forbidden: User "system:serviceaccount:shop:dev" cannot get path "\/metrics"/.test(await other.locator("main [role=alert]").innerText()));
  await other.close();
});

test("dark, and a phone's width", async () => {
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const light = await paper();
  await page.emulateMedia({ colorScheme: "dark" });
  await until("dark by the system", async () => (await paper()) !== light);
  await accessible("dark");
  await open("#/objects/core/v1/namespaces");
  await shows("a table", ".list", "kube-system");
  await accessible("a dark table");
  await page.emulateMedia({ colorScheme: "light" });
  await until("light again", async () => (await paper()) === light);
  await page.keyboard.press("Escape");
  await page.locator(".user").click();
  await page.keyboard.press("T");
  await until("dark by the switch", async () => (await paper()) !== light);
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage)), '{"keelson-dash-theme":"dark"}');
  await page.keyboard.press("T");
  await page.setViewportSize({ width: 360, height: 740 });
  for (const hash of ["#/", "#/?by=owner", "#/server", "#/object/core/v1/nodes/-/sim-0/usage", "#/objects/core/v1/namespaces", "#/changes", "#/object/core/v1/nodes/-/sim-0"]) {
    await open(hash);
    await shows("it is there", "main:not([hidden])", /./);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 360, `${hash} is ${wide} pixels wide on a phone of 360`);
    await accessible(`${hash} on a phone`);
  }
});

test("nothing was loaded from elsewhere, and nothing complained", () => {
  quiet();
});
