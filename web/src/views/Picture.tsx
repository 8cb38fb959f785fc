import { createEffect, createSignal, For, on, onCleanup, onMount, Show } from "solid-js";
import { json } from "../api";
import { pause } from "../pace";
import { ask, base, by, found, hello, hovered, moment, picked, send, status, stream, summary } from "../live";
import { type Grouping, labelOf } from "../picture/cells";
import { stateNames } from "../picture/model";
import { type Item, type Rect, type Row, type Station, stations } from "../picture/protocol";
import { link, go } from "../route";
import { say } from "../say";
import { painted, palette } from "../theme";
import { clock, figure } from "../words";

const labels: Record<Station, string> = { clients: "Clients", api: "API server", store: "Store", controllers: "Controllers", scheduler: "Scheduler", nodes: "Nodes" };

/** Picture is the cluster as a live picture, or as a table of the same. */
export function Picture(props: { shown: boolean; aside: boolean }) {
  const [table, setTable] = createSignal(false);
  return (
    <main id="main" class="picture" hidden={!props.shown} aria-label="Cluster">
      <div class="stage">
        <div class="tools">
          <div class="switch" role="group" aria-label="Show the cluster as">
            <button aria-pressed={!table()} onClick={() => setTable(false)}>Picture</button>
            <button aria-pressed={table()} onClick={() => setTable(true)}>Table</button>
          </div>
          <By />
          <Find />
        </div>
        <Canvas shown={props.shown && !table()} />
        <Show when={table()}>
          <Nodes />
        </Show>
      </div>
      <Show when={props.aside} fallback={<aside class="side" aria-label="Summary" />}><Aside /></Show>
    </main>
  );
}

/** The groupings by something else than a label. */
const groupings: [Grouping, string][] = [["zone", "Zone"], ["namespace", "Namespace"], ["owner", "Owner"]];
/** pools are the labels by which node pools are known, which come first. */
const pools = /nodepool|nodegroup|agentpool|node-pool|instance-type/;

/** heading names what the picture is grouped by. */
const heading = () => groupings.find(([g]) => g === by())?.[1] ?? labelOf(by());

/** By chooses what the picture is grouped by; the address has it. */
function By() {
  const [labels, setLabels] = createSignal<string[]>([]);
  // The labels of some nodes, as far as the user may list them.
  const load = () => void json<{ items: { metadata: { labels?: Record<string, string> } }[] }>("/api/v1/nodes?limit=50", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").then((l) => {
    const all = new Set(l.items.flatMap((n) => Object.keys(n.metadata.labels ?? {})));
    all.delete("kubernetes.io/hostname");
    setLabels([...all].sort((a, b) => Number(pools.test(b)) - Number(pools.test(a)) || (a < b ? -1 : 1)));
  }, () => {});
  const shown = () => [...new Set([labelOf(by()), ...labels()].filter(Boolean))];
  return (
    <div class="by">
      <span id="by">Group by</span>
      <select aria-labelledby="by" value={by()} onFocus={load} onPointerEnter={load} onChange={(e) => go(link([], { by: e.currentTarget.value === "zone" ? "" : e.currentTarget.value }))}>
        <For each={groupings}>{([g, label]) => <option value={g} selected={by() === g}>{label}</option>}</For>
        <Show when={shown().length}>
          <optgroup label="Label of nodes"><For each={shown()}>{(l) => <option value={"label:" + l} selected={by() === "label:" + l}>{l}</option>}</For></optgroup>
        </Show>
      </select>
    </div>
  );
}

function Find() {
  let input!: HTMLInputElement;
  return (
    <label class="find">
      <span class="quiet">Find pods</span>
      <input
        ref={input}
        type="search"
        placeholder="Find pods: name, namespace, node, state"
        onInput={() => send({ type: "find", text: input.value })}
        onKeyDown={(e) => {
          if (e.key === "Escape") {
            input.value = "";
            send({ type: "find", text: "" });
          }
        }}
      />
      <Show when={found() >= 0}>
        <output>{figure(found())} found</output>
      </Show>
    </label>
  );
}

function Canvas(props: { shown: boolean }) {
  let box!: HTMLDivElement, band!: HTMLDivElement, under!: HTMLCanvasElement, over!: HTMLCanvasElement;

  const measure = () => {
    const b = box.getBoundingClientRect();
    if (b.width === 0) return;
    const at = {} as Record<Station, Rect>;
    for (const el of band.querySelectorAll<HTMLElement>("[data-station]")) {
      const r = el.getBoundingClientRect();
      at[el.dataset.station as Station] = { x: r.left - b.left, y: r.top - b.top, w: r.width, h: r.height };
    }
    const top = band.offsetHeight;
    under.style.top = top + "px";
    send({ type: "size", width: Math.round(b.width), height: Math.round(b.height), top, ratio: Math.min(2, devicePixelRatio || 1), stations: at });
  };

  onMount(() => {
    const a = under.transferControlToOffscreen(), b = over.transferControlToOffscreen();
    send({ type: "init", base: a, over: b, url: base }, [a, b]);
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    createEffect(() => {
      painted();
      if (laid()) send({ type: "colors", palette: palette(), still: still.matches });
    });
    const sizes = new ResizeObserver(measure);
    onCleanup(() => sizes.disconnect());
    const visible = () => send({ type: "show", shown: props.shown && document.visibilityState === "visible" });
    createEffect(() => {
      visible();
      if (props.shown && laid()) requestAnimationFrame(measure);
    });
    document.addEventListener("visibilitychange", () => {
      visible();
      send({ type: "away", away: document.visibilityState !== "visible" });
    });
    void begin(sizes);
  });
  // The page is laid out in a task of its own, before its first frame; the stream comes when this thread has no more to do for
  // that, since reading it takes all of a small machine's processors.
  const [laid, setLaid] = createSignal(false);
  async function begin(sizes: ResizeObserver) {
    await pause();
    measure();
    setLaid(true);
    sizes.observe(box);
    sizes.observe(band);
    document.fonts?.ready.then(measure);
    await pause();
    stream("");
  }

  // Pointers: one drags, two zoom.
  const down = new Map<number, { x: number; y: number }>();
  let moved = 0;
  const place = (e: { clientX: number; clientY: number }) => {
    const b = box.getBoundingClientRect();
    return { x: e.clientX - b.left, y: e.clientY - b.top };
  };
  const onPointerDown = (e: PointerEvent) => {
    over.setPointerCapture(e.pointerId);
    down.set(e.pointerId, place(e));
    moved = 0;
  };
  const onPointerMove = (e: PointerEvent) => {
    const p = place(e), was = down.get(e.pointerId);
    if (!was) return send({ type: "hover", ...p });
    down.set(e.pointerId, p);
    if (down.size === 1) {
      moved += Math.abs(p.x - was.x) + Math.abs(p.y - was.y);
      if (moved > 4) send({ type: "pan", x: p.x - was.x, y: p.y - was.y });
    } else if (down.size === 2) {
      moved = 100;
      const [other] = [...down].filter(([id]) => id !== e.pointerId).map(([, q]) => q);
      const d = Math.hypot(p.x - other.x, p.y - other.y), before = Math.hypot(was.x - other.x, was.y - other.y);
      send({ type: "pan", x: (p.x - was.x) / 2, y: (p.y - was.y) / 2 });
      if (before > 0) send({ type: "zoom", by: d / before, x: (p.x + other.x) / 2, y: (p.y + other.y) / 2 });
    }
  };
  const onPointerUp = (e: PointerEvent) => {
    const was = down.get(e.pointerId);
    down.delete(e.pointerId);
    if (was && moved <= 4 && e.type === "pointerup") send({ type: "pick", ...place(e) });
  };
  const onWheel = (e: WheelEvent) => {
    e.preventDefault();
    const p = place(e);
    send({ type: "zoom", by: Math.exp(-Math.max(-100, Math.min(100, e.deltaY)) * (e.ctrlKey ? 0.01 : 0.0022)), ...p });
  };
  // Who moves with keys, and may not see it, is told what is selected.
  let keyed = false;
  createEffect(on(picked, (i) => {
    if (keyed && i) say(`${i.kind} ${i.name}, ${i.state}`);
    keyed = false;
  }));
  const middle = () => ({ x: box.clientWidth / 2, y: box.clientHeight / 2 });
  const onKey = (e: KeyboardEvent) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (arrow && e.shiftKey) send({ type: "pan", x: -80 * arrow[0], y: -80 * arrow[1] });
    else if (arrow) {
      keyed = true;
      send({ type: "move", x: arrow[0], y: arrow[1] });
    }
    else if (e.key === "+" || e.key === "=") send({ type: "zoom", by: 1.4, ...middle() });
    else if (e.key === "-") send({ type: "zoom", by: 1 / 1.4, ...middle() });
    else if (e.key === "0") send({ type: "fit" });
    else if (e.key === "Enter" && picked()?.kind === "pod") go(address(picked()!)!);
    else if (e.key === "Enter") {
      keyed = true;
      send({ type: "into" });
    }
    else if (e.key === "Escape") send({ type: "out" });
    else return;
    e.preventDefault();
  };

  return (
    <div class="field" ref={box} classList={{ away: !props.shown }}>
      <div class="band" ref={band}>
        <For each={stations}>
          {(s) => (
            <div class="station" data-station={s}>
              <span class="name">{labels[s]}</span>
              <span class="rate">{beside(s)}</span>
            </div>
          )}
        </For>
      </div>
      <canvas ref={under} class="under" aria-hidden="true" />
      <canvas
        class="over"
        tabindex="0"
        role="application"
        aria-label="Picture of the nodes and their pods"
        aria-describedby="how"
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerUp}
        onPointerCancel={onPointerUp}
        onPointerLeave={() => send({ type: "leave" })}
        onDblClick={(e) => send({ type: "zoom", by: 2, ...place(e) })}
        ref={(el) => {
          over = el;
          el.addEventListener("wheel", onWheel, { passive: false });
        }}
        onKeyDown={onKey}
      />
      <p id="how" class="quiet">
        Arrow keys select a node, Enter goes to its pods and opens a pod, Escape goes back, plus and minus zoom, 0 shows all, Shift with arrow keys moves the picture. The same is in the table.
      </p>
      <div class="zoom" role="group" aria-label="Zoom">
        <button aria-label="Zoom in" onClick={() => send({ type: "zoom", by: 1.6, ...middle() })}>+</button>
        <button aria-label="Zoom out" onClick={() => send({ type: "zoom", by: 1 / 1.6, ...middle() })}>−</button>
        <button aria-label="Show all" onClick={() => send({ type: "fit" })}><svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M9 2h5v5M14 2 2 14M2 9v5h5" /></svg></button>
      </div>
      <Show when={hovered()}>{(i) => <Tip item={i()} box={box} />}</Show>
      <State />
    </div>
  );
}

/** beside is the figure below a station's name. */
function beside(s: Station): string {
  const v = summary();
  if (!v) return " ";
  if (s === "nodes") return v.rates.nodes ? rate(v.rates.nodes) : figure(v.nodes);
  if (s === "store") return v.stats.storeObjects !== undefined ? figure(v.stats.storeObjects) : " ";
  if (s === "api") {
    const all = Object.values(v.rates).reduce((a, b) => a + b, 0);
    return rate(v.stats.writesPerSecond ?? all);
  }
  return rate(v.rates[s]);
}
const rate = (r: number) => (r < 0.05 ? "–" : (r < 10 ? r.toFixed(1) : figure(Math.round(r))) + "/s");

function State() {
  return (
    <Show when={status().state === "failed" || status().state === "connecting" || (status().state === "loading" && !summary()?.pods)}>
      <div class="state" role="status">
        {status().state === "failed" ? status().message : status().state === "loading" ? "Reading the cluster" : "Connecting again"}
      </div>
    </Show>
  );
}

function Tip(props: { item: Item; box: HTMLElement }) {
  let el!: HTMLDivElement;
  createEffect(() => {
    const i = props.item, w = el.offsetWidth, h = el.offsetHeight;
    const x = Math.max(8, Math.min(props.box.clientWidth - w - 8, i.x - w / 2));
    const y = i.y - h - 8 < 0 ? i.y + 24 : i.y - h - 8;
    el.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  });
  return (
    <div class="tip" ref={el} aria-hidden="true">
      <b>{props.item.namespace ? props.item.namespace + "/" : ""}{props.item.name}</b>
      <span>{props.item.state}{props.item.where ? `, ${props.item.kind === "pod" ? "on" : "in"} ${props.item.where}` : ""}</span>
      <For each={props.item.details}>{(d) => <span>{d}</span>}</For>
    </div>
  );
}

/** workloads are the groups and resources of the kinds that most pods belong to. */
const workloads: Record<string, [string, string]> = {
  Deployment: ["apps", "deployments"], ReplicaSet: ["apps", "replicasets"], StatefulSet: ["apps", "statefulsets"], DaemonSet: ["apps", "daemonsets"],
  Job: ["batch", "jobs"], CronJob: ["batch", "cronjobs"], ReplicationController: ["core", "replicationcontrollers"],
};

/** address is the address of an object in the page; undefined where a group is of no object that it knows. */
function address(i: Item): string | undefined {
  if (i.kind !== "group") return link(["object", "core", "v1", i.kind + "s", i.kind === "pod" ? i.namespace : "-", i.name]);
  if (by() === "namespace") return link(["object", "core", "v1", "namespaces", "-", i.name]);
  const [, kind, ns, name] = /^(\w+) (.*)\/(.*)$/.exec(i.name) ?? [], w = workloads[kind];
  return w && link(["object", w[0], "v1", w[1], ns, name]);
}

function Aside() {
  return (
    <aside class="side" aria-label="Summary" tabindex="0">
      <Totals />
      <Show when={picked()}>{(i) => <Picked item={i()} />}</Show>
      <Writes />
    </aside>
  );
}

function Totals() {
  const counts = () => summary()?.counts ?? [];
  return (
    <section>
      <h2>Pods <b>{figure(summary()?.pods ?? 0)}</b></h2>
      <table class="legend">
        <caption class="quiet">Pods by state</caption>
        <tbody>
          <For each={stateNames}>
            {(n, i) => (
              <tr classList={{ none: !counts()[i()] }}>
                <th scope="row"><i class={"mark s" + i()} aria-hidden="true" />{n}</th>
                <td>{figure(counts()[i()] ?? 0)}</td>
              </tr>
            )}
          </For>
        </tbody>
      </table>
      <h2>Nodes <b>{figure(summary()?.nodes ?? 0)}</b></h2>
      <p class="note" classList={{ bad: !!summary()?.nodesNotReady }}>{summary()?.nodesNotReady ? `${figure(summary()!.nodesNotReady)} not ready` : summary()?.nodes ? "All are ready" : hello()?.may?.nodes === false ? "You may not list nodes" : "There are none"}</p>
    </section>
  );
}

function Picked(props: { item: Item }) {
  return (
    <section class="picked" aria-label="Selected">
      <h2>{{ pod: "Pod", node: "Node", group: by() === "namespace" ? "Namespace" : "Owner" }[props.item.kind]}</h2>
      <p><a href={address(props.item)}>{props.item.namespace ? props.item.namespace + "/" : ""}{props.item.name}</a></p>
      <p class="note">{props.item.state}{props.item.where ? `, ${props.item.kind === "pod" ? "on" : "in"} ${props.item.where}` : ""}</p>
      <For each={props.item.details}>{(d) => <p class="note">{d}</p>}</For>
      <Show when={props.item.owner}>{(o) => <p class="note">belongs to {o().kind} {o().name}</p>}</Show>
    </section>
  );
}

function Writes() {
  const list = () => {
    const s = summary()?.steps ?? [];
    return s.slice(-14).reverse();
  };
  return (
    <section class="writes">
      <h2>Steps <Show when={summary()?.drawn}><span class="note" data-drawn={summary()!.drawn}>drawn after {Math.max(1, Math.round(summary()!.lag))} ms</span></Show></h2>
      <Show when={list().length} fallback={<p class="note">{moment() ? "The past stands still" : hello()?.may?.trace === false ? "You may not read the trace" : "Nothing has happened since this page was opened"}</p>}>
        <ol>
          <For each={list()}>
            {(s) => (
              <li>
                <time>{clock(s[0])}</time> <span class="actor">{s[1]}</span> {s[2]} <span class="what">{s[3].split(".")[0]} {s[4] ? s[4] + "/" : ""}{s[5]}{s[8] ? ": " + s[8] : ""}</span>
              </li>
            )}
          </For>
        </ol>
      </Show>
    </section>
  );
}

const page = 100;

function Nodes() {
  const [filter, setFilter] = createSignal("");
  const [from, setFrom] = createSignal(0);
  const [rows, setRows] = createSignal<{ total: number; rows: Row[] }>({ total: 0, rows: [] });
  const nodes = () => by() !== "namespace" && by() !== "owner";
  createEffect(on(by, () => setFrom(0), { defer: true }));
  createEffect(on([filter, from, summary, by], () => void ask<{ total: number; rows: Row[] }>({ what: "cells", filter: filter(), from: from(), count: page }).then(setRows)));
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Nodes">
      <div class="bar">
        <label>Filter <input type="search" onInput={(e) => { setFilter(e.currentTarget.value); setFrom(0); }} /></label>
        <span class="note">{figure(rows().total)} {nodes() ? "nodes" : by() === "namespace" ? "namespaces" : "owners"}</span>
        <button disabled={from() === 0} onClick={() => setFrom(from() - page)}>Previous</button>
        <button disabled={from() + page >= rows().total} onClick={() => setFrom(from() + page)}>Next</button>
      </div>
      <table class="rows">
        <caption class="quiet">{nodes() ? "Nodes" : heading()} and how many of their pods are in which state</caption>
        <thead>
          <tr>
            <Show when={nodes()} fallback={<th scope="col">{heading()}</th>}>
              <th scope="col">Node</th>
              <th scope="col">{heading()}</th>
              <th scope="col">State</th>
            </Show>
            <For each={stateNames}>{(n) => <th scope="col" class="number">{n}</th>}</For>
          </tr>
        </thead>
        <tbody>
          <For each={rows().rows}>
            {(r) => (
              <tr>
                <th scope="row"><a href={address({ kind: nodes() ? "node" : "group", name: r.name } as Item)}>{r.name}</a></th>
                <Show when={nodes()}>
                  <td>{r.group}</td>
                  <td>{r.flags & 16 ? "" : r.flags & 1 ? "Ready" : "Not ready"}{r.flags & 2 ? ", cordoned" : ""}{r.flags & 4 ? ", pressure" : ""}</td>
                </Show>
                <For each={r.counts}>{(c) => <td class="number">{c || ""}</td>}</For>
              </tr>
            )}
          </For>
        </tbody>
      </table>
    </div>
  );
}
