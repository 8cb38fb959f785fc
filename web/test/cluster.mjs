// A cluster of simulated nodes with keelson dash before it, and a browser: what the tests of the page and its benchmark share.
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const keelson = process.env.KEELSON ?? fileURLToPath(new URL("../../bin/keelson", import.meta.url));

/** until waits for a condition, for 20 seconds at most, and returns what it has returned. */
export async function until(what, condition, limit = 20_000, pause = 25) {
  const end = Date.now() + limit;
  let last;
  for (;;) {
    try {
      last = await condition();
      if (last) return last;
    } catch (e) {
      last = e;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${limit / 1000} s; last: ${last}`);
    await new Promise((r) => setTimeout(r, pause));
  }
}

const port = () =>
  new Promise((resolve, reject) => {
    const s = createServer().on("error", reject);
    s.listen(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => resolve(port));
    });
  });

/** program starts a program that ends with this process; output has what it has printed. */
function program(args, env = {}) {
  const p = spawn(keelson, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  // Also where this process ends by an error.
  const kill = () => p.kill("SIGKILL");
  process.once("exit", kill);
  p.once("exit", () => process.off("exit", kill));
  const out = { process: p, output: "", ended: new Promise((r) => p.on("exit", r)) };
  for (const s of [p.stdout, p.stderr]) s.on("data", (d) => (out.output += d));
  return out;
}

/** Cluster is a server in memory and on a temporary folder's disk, on ports that are free. */
export class Cluster {
  static async start(...flags) {
    const c = new Cluster();
    c.dir = mkdtempSync(join(tmpdir(), "keelson-dash-"));
    c.kubeconfig = join(c.dir, "data", "admin.kubeconfig");
    c.programs = [];
    try {
      c.server = program(["server", "--no-node", "--data-dir", join(c.dir, "data"), "--listen", `127.0.0.1:${await port()}`, ...flags]);
      c.programs.push(c.server);
      await until("the server is ready", async () => {
        if (c.server.process.exitCode !== null) throw new Error(c.server.output);
        return existsSync(c.kubeconfig) && (await c.kubectl("get", "--raw", "/readyz")) === "ok";
      }, 30_000).catch((e) => {
        throw new Error(`${e.message}\n${c.server.output}`);
      });
    } catch (e) {
      await c.stop();
      throw e;
    }
    return c;
  }

  /** kubectl runs a command, with input, and returns what it prints. */
  kubectl(...args) {
    const input = typeof args.at(-1) === "object" ? args.pop() : null;
    return new Promise((resolve, reject) => {
      const p = execFile(keelson, ["kubectl", "--kubeconfig", this.kubeconfig, ...args], { maxBuffer: 1 << 28 }, (e, out, err) => (e ? reject(new Error(`kubectl ${args.join(" ")}: ${err}`)) : resolve(out)));
      p.stdin.on("error", () => {}); // it has not read it
      p.stdin.end(input ? JSON.stringify(input) : "");
    });
  }

  /** raw returns what the server answers to a GET, as bytes. */
  raw(path) {
    return new Promise((resolve, reject) => execFile(keelson, ["kubectl", "--kubeconfig", this.kubeconfig, "get", "--raw", path], { maxBuffer: 1 << 28, encoding: "buffer" }, (e, out, err) => (e ? reject(new Error(`${path}: ${err}`)) : resolve(out))));
  }

  /** dash starts keelson dash, and returns its URL. */
  async dash(kubeconfig = this.kubeconfig) {
    const p = program(["dash", "--no-open", "--kubeconfig", kubeconfig]);
    this.programs.push(p);
    return until("keelson dash prints its URL", () => {
      if (p.process.exitCode !== null) throw new Error(p.output);
      return /http:\/\/\S+/.exec(p.output)?.[0];
    });
  }

  async stop() {
    for (const p of this.programs.reverse()) {
      p.process.kill("SIGTERM");
      const timer = setTimeout(() => p.process.kill("SIGKILL"), 10_000);
      await p.ended;
      clearTimeout(timer);
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** browse starts a browser with a profile of its own, which goes with close. */
export async function browse(options = {}) {
  const profile = mkdtempSync(join(tmpdir(), "keelson-dash-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", ...(options.args ?? [])],
    viewport: { width: 1280, height: 800 },
    colorScheme: "light",
    ...options.context,
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { context, close };
}
