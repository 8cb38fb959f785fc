import { createEffect, createSignal, For, on, onCleanup, Show } from "solid-js";
import { pieces, request, resources, said } from "../api";
import { moment, namespace, setMoment } from "../live";
import { go, link, route } from "../route";
import { clock, figure } from "../words";
import { toYAML } from "../yaml";
import { Diff } from "./Diff";

interface Change {
  revision: number;
  time: string;
  verb: string;
  ends?: boolean;
  user?: string;
  client?: string;
  subresource?: string;
  cause?: string;
}
interface Changed {
  group?: string;
  resource: string;
  namespace?: string;
  name: string;
  uid?: string;
  before?: unknown;
  after?: unknown;
  changes: Change[];
}
interface Of {
  group: string;
  resource: string;
  namespace: string;
  name: string;
}

const most = 500;

/** lines reads objects, a line each, and ends with the first that is too many. */
async function lines(path: string, signal: AbortSignal): Promise<{ list: Changed[]; more: boolean }> {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());
  const list: Changed[] = [];
  let rest = "";
  try {
    await pieces(await request(path, { now: true, signal: stop.signal }), (t) => {
      const parts = (rest + t).split("\n");
      rest = parts.pop()!;
      for (const p of parts) if (p && list.length <= most) list.push(JSON.parse(p));
      if (list.length > most) stop.abort();
    });
  } catch (e) {
    if (signal.aborted || list.length <= most) throw e;
  }
  return { list: list.slice(0, most), more: list.length > most };
}

/** Changes are what differs between two moments: of all objects, or of one. */
export function Changes(props: { of?: Of }) {
  const q = () => route().query;
  const [from, setFrom] = createSignal(q().get("from") || moment() || "10m");
  const [to, setTo] = createSignal(q().get("to") || "");
  const [list, setList] = createSignal<Changed[]>([]);
  const [more, setMore] = createSignal(false);
  const [state, setState] = createSignal("");
  const [error, setError] = createSignal("");
  let abort = new AbortController();

  const query = (of?: Of, brief = true) =>
    "/debug/keelson/changes?" + new URLSearchParams({
      from: from(), ...(to() && { to: to() }), ...(brief && { brief: "true" }),
      ...(of ? { group: of.group, resource: of.resource, namespace: of.namespace, name: of.name } : namespace() ? { namespace: namespace() } : {}),
    });

  async function load() {
    abort.abort();
    const mine = (abort = new AbortController());
    setError("");
    setState("Reading");
    try {
      const l = await lines(query(props.of), mine.signal);
      if (mine.signal.aborted) return;
      const last = (c: Changed) => c.changes[c.changes.length - 1]?.revision ?? 0;
      setList(l.list.sort((a, b) => last(b) - last(a)));
      setMore(l.more);
      setState("");
    } catch (e) {
      if (mine.signal.aborted) return;
      setList([]);
      setState("");
      setError(said(e));
    }
  }
  createEffect(on([namespace, route], () => {
    setFrom(q().get("from") || from());
    setTo(q().get("to") || (q().has("from") ? "" : to()));
    void load();
  }));
  onCleanup(() => abort.abort());

  const submit = (e: Event) => {
    e.preventDefault();
    if (props.of) void load();
    else go(link(["changes"], { from: from(), to: to() }));
    if (!props.of && q().get("from") === from() && (q().get("to") ?? "") === to()) void load();
  };
  const Inner = () => (
    <div class="scroll" tabindex="0" role="region" aria-label="Changes">
      <form class="bar" onSubmit={submit}>
        <label>From <input value={from()} onInput={(e) => setFrom(e.currentTarget.value)} placeholder="10m, a time, a revision" required /></label>
        <label>to <input value={to()} onInput={(e) => setTo(e.currentTarget.value)} placeholder="now" /></label>
        <button class="main">Compare</button>
        <span class="note">{state() || (error() ? "" : `${figure(list().length)}${more() ? " and more" : ""} objects differ or have changed`)}</span>
      </form>
      <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
      <Show when={more()}><p class="note">The first {figure(most)} are shown. Choose a namespace, or a shorter time.</p></Show>
      <ul class="changes"><For each={list()}>{(c) => <One changed={c} query={query({ group: c.group ?? "", resource: c.resource, namespace: c.namespace ?? "", name: c.name }, false)} open={!!props.of} />}</For></ul>
    </div>
  );
  return <Show when={props.of} fallback={<main id="main" class="changed"><h2 class="title">What changed</h2><Inner /></main>}><Inner /></Show>;
}

function One(props: { changed: Changed; query: string; open: boolean }) {
  const c = props.changed;
  const [both, setBoth] = createSignal<{ before: string; after: string } | null>(null);
  const [error, setError] = createSignal("");
  const [version, setVersion] = createSignal("");
  void resources().then((all) => setVersion(all.find((r) => r.group === (c.group ?? "") && r.plural === c.resource)?.version ?? ""), () => {});
  const load = async () => {
    if (both()) return;
    try {
      const text = await (await request(props.query, { now: true })).text();
      const found = text.split("\n").filter(Boolean).map((l) => JSON.parse(l) as Changed).find((o) => o.name === c.name);
      setBoth({ before: found?.before ? toYAML(found.before) : "", after: found?.after ? toYAML(found.after) : "" });
    } catch (e) {
      setError(said(e));
    }
  };
  const last = () => c.changes[c.changes.length - 1];
  const verb = () => {
    const verbs = c.changes.map((x) => x.verb), made = verbs.includes("created"), gone = verbs[verbs.length - 1] === "deleted";
    return made && gone ? "came and went" : gone ? "deleted" : made ? "created" : last()?.ends ? "being deleted" : verbs.length > 1 ? `changed ${verbs.length} times` : "changed";
  };
  if (props.open) void load();
  return (
    <li>
      <details open={props.open} onToggle={(e) => e.currentTarget.open && void load()}>
        <summary>
          <time>{last() ? clock(Date.parse(last().time)) : ""}</time> <span class="kind">{c.resource}</span> <b>{c.namespace ? c.namespace + "/" : ""}{c.name}</b> <span class={verb() === "deleted" ? "bad" : "note"}>{verb()}</span> <span class="note">by {who(verb() === "created" ? c.changes[0] : last())}</span>
        </summary>
        <ol class="writers">
          <For each={c.changes.slice(-50)}>
            {(x) => (
              <li>
                <time>{clock(Date.parse(x.time))}</time> {x.verb}{x.subresource ? ` (${x.subresource})` : ""} <span class="note">by {who(x)}, revision {x.revision}</span> <button class="link" onClick={() => setMoment(String(x.revision))}>Go there</button>
              </li>
            )}
          </For>
        </ol>
        <Show when={version() && last()?.verb !== "deleted"}><p><a href={link(["object", c.group || "core", version(), c.resource, c.namespace || "-", c.name])}>Open it</a></p></Show>
        <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
        <Show when={both()}>{(b) => <Diff before={b().before} after={b().after} />}</Show>
      </details>
    </li>
  );
}

/** who made a change; those of the server itself have no user. */
const who = (c?: Change): string => (c?.user ? [c.user?.replace(/^system:serviceaccount:kube-system:/, ""), c.client?.split(/[\s/]/)[0] === c.user ? "" : c.client ? `(${c.client.split(" ")[0]})` : ""].filter(Boolean).join(" ") : "the API server");
