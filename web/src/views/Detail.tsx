import { createEffect, createMemo, createResource, createSignal, For, Match, on, Show, Switch } from "solid-js";
import { json, request, type Resource, resources, said } from "../api";
import { ask, moment, opened, send } from "../live";
import { path } from "../path";
import type { Tree } from "../picture/protocol";
import { go, link, route } from "../route";
import { say } from "../say";
import { ago } from "../words";
import { Events } from "./Events";
import { Logs } from "./Logs";
import { Terminal } from "./Terminal";
import { Trace } from "./Trace";
import { type Sized, Usage } from "./Usage";
import { Changes } from "./Changes";
import { Yaml } from "./Yaml";

export interface Meta {
  name: string;
  namespace?: string;
  uid?: string;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: { apiVersion: string; kind: string; name: string; controller?: boolean }[];
  resourceVersion?: string;
}
type Container = NonNullable<NonNullable<Sized["spec"]>["containers"]>[number];
export interface Obj {
  status?: Sized["status"] & { phase?: string; reason?: string; message?: string; conditions?: Condition[]; containerStatuses?: ContainerStatus[]; initContainerStatuses?: ContainerStatus[] };
  kind: string;
  metadata: Meta;
  spec?: { containers?: Container[]; initContainers?: { name: string }[]; ephemeralContainers?: { name: string }[]; nodeName?: string };
}

interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
}
interface ContainerStatus {
  name: string;
  state?: { waiting?: { reason?: string; message?: string } };
}

/** adverse are conditions that are good news while they are False. */
const adverse = /Pressure|Unavailable|Fail|Disrupt|Stalled|Degraded|Deletion|Suspended|Pending/;

/** troubles say why an object is not as it should be, in the words of those who write its status. */
function troubles(o: Obj): string[] {
  const s = o.status ?? {}, say = (reason?: string, message?: string) => [reason, message].filter(Boolean).join(": ");
  const waiting = [...(s.initContainerStatuses ?? []), ...(s.containerStatuses ?? [])].flatMap((c) => {
    const w = c.state?.waiting;
    return w?.message ? [`${c.name}: ${say(w.reason, w.message)}`] : [];
  });
  const conditions = (s.conditions ?? []).filter((c) => c.message && c.status === (adverse.test(c.type) ? "True" : "False") && !(c.reason === "ContainersNotReady" && waiting.length));
  return [...new Set([...(s.message ? [say(s.reason, s.message)] : []), ...waiting, ...conditions.map((c) => say(c.reason, c.message))])].slice(0, 4);
}

export const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/** Detail is the page of an object: #/object/GROUP/VERSION/PLURAL/NAMESPACE/NAME[/TAB]. */
export function Detail() {
  const [all] = createResource(resources);
  const at = createMemo(() => {
    const [, group, version, plural, ns, name] = route().path;
    return { group: group === "core" ? "" : group, version, plural, namespace: ns === "-" ? "" : (ns ?? ""), name: name ?? "" };
  }, undefined, { equals: (a, b) => JSON.stringify(a) === JSON.stringify(b) });
  const resource = createMemo(() => (all.error ? undefined : all()?.find((r) => r.group === at().group && r.plural === at().plural)));
  const tab = () => route().path[6] ?? "yaml";
  const [object, { refetch }] = createResource(
    () => ({ at: at(), moment: moment() }),
    ({ at }) => json<Obj>(path(at, at.namespace, at.name), at.group === "" && at.plural === "secrets" ? metadataOnly : "application/json"),
  );
  createEffect(() => {
    const a = at();
    if (a.group === "" && (a.plural === "pods" || a.plural === "nodes")) send({ type: "select", kind: a.plural === "pods" ? "pod" : "node", namespace: a.namespace, name: a.name });
  });
  // What the picture says of the object has changed: so has the object.
  const state = () => {
    const i = opened();
    return i && i.name === at().name && i.namespace === at().namespace && i.kind + "s" === at().plural && at().group === "" ? i.state : "";
  };
  const [fresh, setFresh] = createSignal<Obj>();
  createEffect(on([state, at], ([s, a], was) => {
    if (was?.[1] !== a) setFresh(undefined);
    else if (s) json<Obj>(path(a, a.namespace, a.name)).then((o) => at() === a && setFresh(o), () => {}); // what it was is shown until it can be read
  }));
  const present = () => fresh() ?? (object.error ? undefined : object.latest);
  const tabs = createMemo(() => {
    const pod = at().group === "" && at().plural === "pods", used = pod || (at().group === "" && at().plural === "nodes");
    return [["yaml", "YAML"], ["related", "Related"], ["events", "Events"], ["trace", "Trace"], ["changes", "Changes"], ...(used && !moment() ? [["usage", "Usage"]] : []), ...(pod && !moment() ? [["logs", "Logs"], ["terminal", "Terminal"]] : [])];
  });
  const to = (t: string) => link([...route().path.slice(0, 6), ...(t === "yaml" ? [] : [t])]);
  const meta = () => present()?.metadata;
  return (
    <main id="main" class="detail">
      <div class="head">
        <p class="note">
          <a href={link(["objects", at().group || "core", at().version, at().plural])}>{at().plural}{at().group ? "." + at().group : ""}</a>
          <Show when={at().namespace}> in {at().namespace}</Show>
        </p>
        <h2>{at().name}</h2>
        <p class="note">
          <Show when={state()}><b>{state()}</b>, </Show>
          <Show when={meta()?.creationTimestamp}>{(t) => <>made {ago(Date.parse(t()))} </>}</Show>
          <Show when={meta()?.deletionTimestamp}><span class="bad">is being deleted </span></Show>
          <Show when={present()?.spec?.nodeName}>{(node) => <>on <a href={link(["object", "core", "v1", "nodes", "-", node()])}>{node()}</a></>}</Show>
        </p>
        <Show when={present()}>{(o) => <For each={troubles(o())}>{(t) => <p class="bad state-of">{t}</p>}</For>}</Show>
        <Show when={resource()?.verbs.includes("delete") && !moment() && !object.error}><Delete at={at()} /></Show>
      </div>
      <nav class="tabs" aria-label="Parts of the object">
        <For each={tabs()}>{([id, label]) => <a href={to(id)} aria-current={tab() === id ? "page" : undefined}>{label}</a>}</For>
      </nav>
      <Show when={object.error && tab() !== "changes" && tab() !== "trace"} fallback={
        <Show when={at()} keyed>
          {(a) => (
            <div class="tab">
              <Switch>
                <Match when={tab() === "yaml"}><Yaml at={a} writable={!!resource()?.verbs.includes("update")} changed={refetch} /></Match>
                <Match when={tab() === "related"}><Related at={a} kind={resource()?.kind ?? ""} meta={meta()} all={all.error ? [] : (all() ?? [])} /></Match>
                <Match when={tab() === "events"}><Events namespace={a.namespace} name={a.name} uid={meta()?.uid} /></Match>
                <Match when={tab() === "trace"}><Trace group={a.group} plural={a.plural} namespace={a.namespace} name={a.name} /></Match>
                <Match when={tab() === "changes"}><Changes of={{ group: a.group, resource: a.plural, namespace: a.namespace, name: a.name }} /></Match>
                <Match when={tab() === "usage" && (a.plural === "pods" || a.plural === "nodes") && !object.error && object()}><Usage plural={a.plural as "pods" | "nodes"} namespace={a.namespace} name={a.name} object={object()!} /></Match>
                <Match when={tab() === "logs" && !object.error && object()}><Logs namespace={a.namespace} name={a.name} uid={object()!.metadata.uid ?? ""} containers={containers(object()!)} /></Match>
                <Match when={tab() === "terminal" && !object.error && object()}><Terminal namespace={a.namespace} name={a.name} containers={containers(object()!)} /></Match>
              </Switch>
            </div>
          )}
        </Show>
      }>
        <p class="bad empty" role="alert">{said(object.error)}</p>
      </Show>
    </main>
  );
}

const containers = (o: Obj): string[] => [...(o.spec?.containers ?? []), ...(o.spec?.initContainers ?? []), ...(o.spec?.ephemeralContainers ?? [])].map((c) => c.name);

interface At {
  group: string;
  version: string;
  plural: string;
  namespace: string;
  name: string;
}

function Delete(props: { at: At }) {
  const [error, setError] = createSignal("");
  let dialog!: HTMLDialogElement;
  const remove = async () => {
    try {
      await request(path(props.at, props.at.namespace, props.at.name), { method: "DELETE", now: true });
      dialog.close();
      say(`${props.at.name} is deleted`);
      go(link(["objects", props.at.group || "core", props.at.version, props.at.plural]));
    } catch (e) {
      setError(said(e));
    }
  };
  return (
    <>
      <button class="act" onClick={() => { setError(""); dialog.showModal(); }}>Delete…</button>
      <dialog ref={dialog} aria-labelledby="delete">
        <h2 id="delete">Delete {props.at.name}?</h2>
        <p>What belongs to it is deleted with it. <code>keelson restore</code> brings it back as long as the history reaches.</p>
        <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
        <div class="bar">
          <button class="main" onClick={remove}>Delete</button>
          <button onClick={() => dialog.close()}>Keep it</button>
        </div>
      </dialog>
    </>
  );
}

/** Related shows what an object belongs to, and what belongs to it. */
function Related(props: { at: At; kind: string; meta?: Meta; all: Resource[] }) {
  const [owners, setOwners] = createSignal<{ kind: string; name: string; to: string }[]>([]);
  const [tree, setTree] = createSignal<Tree | null>(null);
  const find = (apiVersion: string, kind: string) => {
    const [g, v] = apiVersion.includes("/") ? apiVersion.split("/") : ["", apiVersion];
    return props.all.find((r) => r.group === g && r.kind === kind) ?? { group: g, version: v, plural: "", namespaced: true };
  };
  createEffect(on([() => props.meta, () => props.all], async ([meta]) => {
    const chain: { kind: string; name: string; to: string }[] = [];
    let m = meta;
    for (let depth = 0; m && depth < 8; depth++) {
      const ref: NonNullable<Meta["ownerReferences"]>[number] | undefined = m.ownerReferences?.find((o) => o.controller) ?? m.ownerReferences?.[0];
      if (!ref) break;
      const r = find(ref.apiVersion, ref.kind), ns = r.namespaced ? props.at.namespace : "";
      chain.unshift({ kind: ref.kind, name: ref.name, to: r.plural ? link(["object", r.group || "core", r.version, r.plural, ns || "-", ref.name]) : "" });
      if (!r.plural) break;
      try {
        m = (await json<Obj>(path(r, ns, ref.name), metadataOnly)).metadata;
      } catch {
        break; // It is gone, or may not be read: the chain ends here.
      }
    }
    setOwners(chain);
  }));
  createEffect(on([() => props.kind, () => props.meta, moment], async () => {
    if (props.at.plural === "nodes" && props.at.group === "") {
      const pods = await ask<{ namespace: string; name: string; state: string }[]>({ what: "pods", node: props.at.name });
      setTree({ kind: "Node", namespace: "", name: props.at.name, state: "", more: 0, children: pods.map((p) => ({ kind: "Pod", ...p, children: [], more: 0 })) });
    } else setTree(await ask<Tree | null>({ what: "tree", kind: props.kind, namespace: props.at.namespace, name: props.at.name }));
  }));
  const href = (t: Tree) => {
    const r = props.all.find((r) => r.kind === t.kind && r.verbs.includes("get"));
    return r ? link(["object", r.group || "core", r.version, r.plural, r.namespaced ? t.namespace : "-", t.name]) : undefined;
  };
  const Branch = (p: { tree: Tree; self: boolean }) => (
    <li>
      <span class={"leaf" + (p.self ? " self" : "")}>
        <span class="kind">{p.tree.kind}</span> <a href={href(p.tree)}>{p.tree.name}</a> <span class={p.tree.state === "Failing" || p.tree.state === "Unschedulable" ? "bad" : "note"}>{p.tree.state}</span>
        <Show when={p.tree.node}>{(n) => <> <span class="note">on</span> <a href={link(["object", "core", "v1", "nodes", "-", n()])}>{n()}</a></>}</Show>
      </span>
      <Show when={p.tree.children.length}>
        <ul><For each={p.tree.children}>{(c) => <Branch tree={c} self={false} />}</For><Show when={p.tree.more}><li class="note">{p.tree.more} more</li></Show></ul>
      </Show>
    </li>
  );
  const Owners = (p: { left: { kind: string; name: string; to: string }[] }) => (
    <Show when={p.left[0]} fallback={<Branch tree={tree() ?? { kind: props.kind, namespace: props.at.namespace, name: props.at.name, state: "", children: [], more: 0 }} self={true} />}>
      {(o) => <li><span class="leaf"><span class="kind">{o().kind}</span> <a href={o().to || undefined}>{o().name}</a></span><ul><Owners left={p.left.slice(1)} /></ul></li>}
    </Show>
  );
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Related objects">
      <ul class="tree"><Owners left={owners()} /></ul>
      <Show when={props.meta?.labels}>
        <h3>Labels</h3>
        <ul class="labels"><For each={Object.entries(props.meta!.labels!)}>{([k, v]) => <li><code>{k}={v}</code></li>}</For></ul>
      </Show>
    </div>
  );
}
