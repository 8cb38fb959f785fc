import "./adopt";
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { Failure, request } from "./api";
import { base } from "./live";
import { segment } from "./path";

// The channels of v5.channel.k8s.io (KEP-4006): the first byte of each message.
const stdin = 0, stdout = 1, stderr = 2, errors = 3, resize = 4, closed = 255;

interface Target {
  namespace: string;
  pod: string;
  container: string;
  command: string[];
}

interface Status {
  status?: string;
  message?: string;
  reason?: string;
  details?: { causes?: { reason?: string; message?: string }[] };
}

/** outcome says how a command has ended, as kubectl exec does. */
function outcome(s: Status): string {
  if (s.status === "Success") return "The command has ended.";
  const code = s.reason === "NonZeroExitCode" && s.details?.causes?.find((c) => c.reason === "ExitCode")?.message;
  return code ? `command terminated with exit code ${code}` : (s.message ?? "");
}

/**
 * refusal returns why a connection was refused, which a browser does not tell: the
 * same request without a connection is answered with the reason. The right to
 * create is asked for, too, and its lack is told to a POST.
 */
async function refusal(socket: URL): Promise<string> {
  const path = (socket.pathname + socket.search).slice(base.length);
  let why = "the connection was lost";
  for (const method of ["GET", "POST"]) {
    try {
      await request(path, { now: true, method });
    } catch (e) {
      if (!(e instanceof Failure)) return why;
      why = e.message;
      if (e.code !== 400) break; // 400: it is no connection, and nothing else is wrong
    }
  }
  return why;
}

const font = '"IBM Plex Mono"', fontSize = 13;

/** measurable waits for the font, whose width gives the terminal its columns; without it there is another one. */
export const measurable = () => document.fonts.load(`${fontSize}px ${font}`).catch(() => {});

/**
 * open runs a command in a terminal in a host, and returns what ends it; end is called with why it ended, and leave when the
 * keyboard is to go elsewhere: Tab is the command's, and Shift with Tab leads out (WCAG 2.1.2).
 */
export function open(host: HTMLElement, t: Target, end: (why: string) => void, leave: () => void): () => void {
  const s = getComputedStyle(document.documentElement), v = (n: string) => s.getPropertyValue(n).trim();
  host.replaceChildren();
  const term = new Terminal({
    fontFamily: `${font}, ui-monospace, monospace`, fontSize, cursorBlink: true, scrollback: 5000, screenReaderMode: true, allowProposedApi: false,
    theme: { background: v("--paper"), foreground: v("--ink"), cursor: v("--accent"), selectionBackground: v("--line"), black: "#171a1e", red: v("--alarm"), green: v("--good"), yellow: v("--pending"), blue: v("--accent"), magenta: v("--unknown"), cyan: v("--ready"), white: v("--faint") },
  });
  const fit = new FitAddon();
  term.loadAddon(fit);
  term.open(host);
  term.attachCustomKeyEventHandler((e) => {
    if (e.key !== "Tab" || !e.shiftKey || e.ctrlKey || e.altKey || e.metaKey) return true;
    e.preventDefault();
    if (e.type === "keydown") leave();
    return false;
  });
  term.textarea?.setAttribute("aria-describedby", "leave");
  fit.fit();

  const q = new URLSearchParams({ stdin: "true", stdout: "true", tty: "true", ...(t.container && { container: t.container }) });
  for (const c of t.command) q.append("command", c);
  const url = new URL(`${base}/api/v1/namespaces/${segment(t.namespace)}/pods/${segment(t.pod)}/exec?${q}`, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
  socket.binaryType = "arraybuffer";
  const write = (channel: number, data: Uint8Array) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    const frame = new Uint8Array(data.length + 1);
    frame[0] = channel;
    frame.set(data, 1);
    socket.send(frame);
  };
  const utf8 = new TextEncoder(), text = new TextDecoder();
  const size = () => write(resize, utf8.encode(JSON.stringify({ Width: term.cols, Height: term.rows })));
  let why = "", ended = false;
  const finish = () => {
    if (ended) return;
    ended = true;
    observer.disconnect();
    end(why);
  };
  socket.onopen = () => {
    size();
    term.focus();
  };
  socket.onmessage = (e) => {
    const data = new Uint8Array(e.data as ArrayBuffer);
    if (data[0] === stdout || data[0] === stderr) term.write(data.subarray(1));
    else if (data[0] === errors) {
      const raw = text.decode(data.subarray(1));
      try {
        why = outcome(JSON.parse(raw)) || raw;
      } catch {
        why = raw;
      }
    } else if (data[0] === closed) socket.close();
  };
  socket.onclose = (e) => {
    if (!why && !e.wasClean) void refusal(url).then((text) => (why = text)).finally(finish);
    else {
      why ||= e.reason || "The command has ended.";
      finish();
    }
  };
  term.onData((d) => write(stdin, utf8.encode(d)));
  term.onBinary((d) => write(stdin, Uint8Array.from(d, (c) => c.charCodeAt(0))));
  term.onResize(size);
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(host);
  return () => {
    socket.close();
    finish();
    term.dispose();
    host.replaceChildren();
  };
}
