/** live is the page's side of the worker: what it tells, as signals, and questions to it. */
import { createEffect, createMemo, createRoot, createSignal } from "solid-js";
import { type Grouping, grouping } from "./picture/cells";
import type { Hello } from "./picture/model";
import { route } from "./route";
import type { FromWorker, Item, Summary, ToWorker } from "./picture/protocol";

export const base = location.pathname.replace(/\/dash\/.*$/, "").replace(/\/$/, "");

let worker: Worker;

export const [hello, setHello] = createSignal<Hello | null>(null);
/** skew is the server's clock less this one's, in ms. */
export const [skew, setSkew] = createSignal(0);
export const [status, setStatus] = createSignal<{ state: string; message: string }>({ state: "loading", message: "" });
export const [summary, setSummary] = createSignal<Summary | null>(null);
export const [hovered, setHovered] = createSignal<Item | null>(null);
export const [picked, setPicked] = createSignal<Item | null>(null);
/** opened is the node or pod whose page is open, with its state as the picture has it; "" while it is not there. */
export const [opened, setOpened] = createSignal<Pick<Item, "kind" | "namespace" | "name" | "state"> | null>(null);
export const [found, setFound] = createSignal(-1);

let asked = 0;
const answers = new Map<number, (v: unknown) => void>();

/** start starts the worker, before anything is sent to it. */
export function start() {
  worker = new Worker(new URL("./picture/worker.ts", import.meta.url), { type: "module" });
  worker.onmessage = receive;
  createRoot(() => createEffect(() => send({ type: "group", by: by() })));
}

function receive(e: MessageEvent<FromWorker>) {
  const m = e.data;
  switch (m.type) {
    case "hello":
      setSkew(Math.abs(m.hello.now - Date.now()) < 2000 ? 0 : m.hello.now - Date.now());
      setHello(m.hello);
      break;
    case "status":
      setStatus({ state: m.state, message: m.message });
      break;
    case "first":
      performance.mark("first-picture", { detail: { pods: m.pods, nodes: m.nodes }, startTime: Math.max(0, m.ms - performance.timeOrigin) });
      break;
    case "summary":
      setSummary(m.summary);
      break;
    case "hover":
      setHovered(m.item);
      break;
    case "picked":
      setPicked(m.item);
      break;
    case "opened":
      setOpened(m);
      break;
    case "found":
      setFound(m.count);
      break;
    case "answer":
      answers.get(m.id)?.(m.value);
      answers.delete(m.id);
  }
}

export function send(m: ToWorker, transfer: Transferable[] = []) {
  worker.postMessage(m, transfer);
}

type Question = Extract<ToWorker, { type: "ask" }> extends infer Q ? (Q extends unknown ? Omit<Q, "type" | "id"> : never) : never;

export function ask<T>(q: Question): Promise<T> {
  const id = ++asked;
  return new Promise((resolve) => {
    answers.set(id, resolve as (v: unknown) => void);
    send({ type: "ask", id, ...q } as ToWorker);
  });
}

/** moment is the moment of the past that the page shows; "" is now. */
export const [moment, setMomentSignal] = createSignal("");
export const [namespace, setNamespace] = createSignal("");

/** setMoment goes to a moment in the past, or back to now. */
export function setMoment(at: string) {
  if (at === moment()) return;
  setMomentSignal(at);
  send({ type: "open", at, namespace: streamed });
}

/** by is what the picture is grouped by, as the address of the picture has it. */
export const by = createRoot(() => createMemo<Grouping>((was) => (route().path.length ? was : grouping(route().query.get("by"))), "zone"));

let streamed = "";
/** stream opens the stream, of one namespace if the user may not read all. */
export function stream(ns: string) {
  streamed = ns;
  send({ type: "open", at: moment(), namespace: ns });
}
