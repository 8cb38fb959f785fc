// The page's terminal and logs in a browser, with pods that run containers. test/dash starts the cluster: PAGE, READER and
// GETTER are URLs of keelson dash: for its administrator, for a user who may read pods and their logs, and for one who may also
// get, but not create, pods/exec.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browse, until } from "./cluster.mjs";
import { use } from "./page.mjs";

const patience = 60_000;
let browser, page, open, text, shows, accessible, quiet;

before(async () => {
  browser = await browse();
  ({ page, open, text, shows, accessible, quiet } = await use(browser.context, process.env.PAGE));
  await page.goto(process.env.PAGE);
  await shows("the cluster", ".legend", /Ready\s+[1-9]/, patience);
});

after(async () => {
  await browser?.close();
});

// An interrupt ends the browser, too.
process.once("SIGINT", async () => {
  await browser?.close();
  process.exit(130);
});

/** view opens a part of a pod's page. */
async function view(pod, part) {
  await open("#/");
  await open(`#/object/core/v1/pods/default/${pod}/${part}`);
  await page.locator(`.${part === "logs" ? "logs" : "terminal"}`).waitFor({ timeout: patience });
}

const screen = (what, want) => shows(what, ".xterm-rows", want, patience);
const log = (what, want) => shows(what, ".logs pre", want, patience);
const status = (what, part, want) => shows(what, `.${part} [role=status]`, want, patience);

/** run starts a command in a terminal, and waits for its prompt. */
async function run(command, prompt) {
  await page.getByLabel("Command").fill(command);
  await page.getByRole("button", { name: "Run" }).click();
  if (prompt) await screen("the prompt", prompt);
}

/** type types a line into the terminal. */
async function type(line) {
  await page.keyboard.type(line);
  await page.keyboard.press("Enter");
}

/** answer returns the last number that a command prints in the terminal. */
async function answer(command) {
  const id = Math.random().toString(36).slice(2, 10), line = new RegExp(`${id}: ?((?:\\d+ ?)+)`);
  await type(`echo ${id}: $(${command})`);
  await screen("the answer", line);
  return Number(line.exec(await text(".xterm-rows"))[1].trim().split(" ").at(-1));
}

test("a terminal: a command and what it prints, the size, the exit code", async () => {
  await view("shell", "terminal");
  await run("sh", "# ");
  await type("echo $((6*7)) from $HOSTNAME");
  await screen("what it prints", "42 from shell");
  const columns = () => answer("stty size");
  const wide = await columns();
  assert.ok(wide > 80, `${wide} columns`);
  await page.setViewportSize({ width: 640, height: 700 });
  await until("the narrower terminal", async () => (await columns()) < wide, patience);
  await page.setViewportSize({ width: 1280, height: 800 });
  await until("the wider terminal", async () => {
    const now = await columns();
    if (now !== wide) throw new Error(`${now} columns, before ${wide}`);
    return true;
  }, patience);
  await type("printf '\\303\\251\\342\\202\\254 \\033[32mgreen\\033[0m\\n'");
  await screen("UTF-8 and colours", "é€ green");
  await accessible("a terminal");
  await type("exit 7");
  await status("how it ended", "terminal", "command terminated with exit code 7");
  await run("sh -c exit", "");
  await status("its success", "terminal", "The command has ended.");
  await run("no-such-program", "");
  await status("what is not there", "terminal", /no-such-program.*no such file or directory|executable file not found/);
});

test("a terminal in another container, which is ended", async () => {
  await view("shell", "terminal");
  await page.getByRole("combobox", { name: "Container" }).selectOption("side");
  await run("sh", "# ");
  await type("tr '\\0' ' ' < /proc/1/cmdline");
  await screen("whose container it is", "side has started");
  await page.getByRole("button", { name: "End" }).click();
  await page.getByRole("button", { name: "Run" }).waitFor({ timeout: patience });
  assert.equal(await page.locator(".xterm").count(), 0);
});

test("a log is followed while the container writes, of each container", async () => {
  await view("shell", "logs");
  await log("what was written", "main has started");
  // Another page writes, as the container, by its terminal.
  const other = await use(browser.context, process.env.PAGE);
  await other.page.goto(page.url().replace(/#.*/, "#/object/core/v1/pods/default/shell/terminal"));
  await other.page.getByRole("button", { name: "Run" }).click();
  await other.shows("the prompt", ".xterm-rows", "# ", patience);
  for (const word of ["one", "two", "three"]) {
    await other.page.keyboard.type(`echo live ${word} > /proc/1/fd/1\n`);
    await log("what is written now", `live ${word}\n`);
  }
  await accessible("a log");
  await page.getByLabel("Times").check();
  await log("the times", /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* live one\n/);
  await page.getByLabel("Times").uncheck();
  await page.getByRole("combobox", { name: "Container" }).selectOption("side");
  await log("the other container's", "side has started");
  assert.doesNotMatch(await text(".logs pre"), /live/);
  await page.getByRole("combobox", { name: "Container" }).selectOption("before");
  await log("that of the container before them", "this comes first");
  await status("that it has ended", "logs", "The log has ended. The container has ended with exit code 0 (Completed).");
  await page.getByRole("combobox", { name: "Container" }).selectOption("main");
  await page.getByLabel("Previous container").check();
  await shows("that there is none", ".logs [role=alert]", 'previous terminated container "main" in pod "shell" not found', patience);
  await other.page.close();
  other.quiet();
});

test("the log of the container before a restart", async () => {
  await view("restarts", "logs");
  await log("the present container's", "the second run");
  await page.getByLabel("Previous container").check();
  await log("the one's before", "the first run");
  assert.doesNotMatch(await text(".logs pre"), /second/);
  await page.getByLabel("Previous container").uncheck();
  await log("the present one's again", "the second run");
});

test("a container that ends while its log is followed", async () => {
  await view("ends", "logs");
  await log("what was written", "at work");
  const other = await use(browser.context, process.env.PAGE);
  await other.page.goto(page.url().replace(/#.*/, "#/object/core/v1/pods/default/ends/terminal"));
  await other.page.getByLabel("Command").fill("touch /tmp/end");
  await other.page.getByRole("button", { name: "Run" }).click();
  await log("its last words", "done with it");
  await status("how it ended", "logs", "The log has ended. The container has ended with exit code 3 (Error).");
  await page.getByRole("button", { name: "Read again" }).click();
  await log("all of it again", /at work\ndone with it/);
  await other.page.reload();
  await other.page.getByRole("button", { name: "Run" }).click();
  await other.shows("that none runs there", ".terminal [role=status]", /container is in CONTAINER_EXITED state/, patience);
  await other.page.close();
});

test("a pod that is deleted while its log is followed", async () => {
  await view("goes", "logs");
  await log("what was written", "still here");
  const other = await use(browser.context, process.env.PAGE);
  await other.page.goto(page.url().replace(/#.*/, "#/object/core/v1/pods/default/goes"));
  await other.page.getByRole("button", { name: "Delete…" }).click();
  await other.page.getByRole("button", { name: "Delete", exact: true }).click();
  await status("that it is gone", "logs", "The log has ended. The pod is gone.");
  await page.getByRole("button", { name: "Read again" }).click();
  await shows("what there is not", ".logs [role=alert]", 'pods "goes" not found', patience);
  await other.page.close();
});

test("what a container writes is text", async () => {
  await view("evil", "logs");
  await log("the tags", '<img src=x onerror="document.title=1">');
  assert.equal(await page.locator(".logs pre *").count(), 0);
  await view("evil", "terminal");
  // A title, the clipboard, a link that runs a script, and an answer that would be typed.
  await run("sh", "# ");
  const title = await page.title();
  await type("printf '\\033]0;owned\\007\\033]2;owned\\007\\033]52;c;b3duZWQ=\\007\\033]8;;javascript:document.title=1\\007a link\\033]8;;\\007 <b>bold</b>\\n'");
  await screen("the text of it", /a.link <b>bold<\/b>\s+\/ #/);
  await page.locator(".xterm-rows span", { hasText: "a link" }).last().click({ force: true }).catch(() => {});
  assert.equal(await page.title(), title);
  assert.equal(await page.locator(".xterm-rows b, .xterm-rows a, .xterm-rows img").count(), 0);
  await type("exit");
});

test("users who may read logs follow them, and get no terminal", async () => {
  // A connection is a GET, and needs the right to create, too.
  for (const [user, verb] of [["reader", "get"], ["getter", "create"]]) {
    const { page, ...other } = await use(browser.context, process.env[user.toUpperCase()]);
    await page.goto(process.env[user.toUpperCase()]);
    await page.locator("header").waitFor({ timeout: patience });
    await other.open("#/object/core/v1/pods/default/shell/logs");
    await other.shows("the log", ".logs pre", "main has started", patience);
    await other.open("#/object/core/v1/pods/default/shell/terminal");
    await page.getByRole("button", { name: "Run" }).click();
    await other.shows("the refusal", ".terminal [role=status]", `pods "shell" is forbidden: User "system:serviceaccount:default:${user}" cannot ${verb} resource "pods/exec" in API group "" in the namespace "default"`, patience);
    await page.close();
  }
});

test("nothing was loaded from elsewhere, and nothing complained", () => quiet());
