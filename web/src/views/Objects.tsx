import { createEffect, createMemo, createResource, createSignal, For, on, onCleanup, Show } from "solid-js";
import { asTable, request, resources, said, type Resource, type Table, type TableRow, watch } from "../api";
import { moment, namespace } from "../live";
import { path } from "../path";
import { go, link, route } from "../route";
import { figure } from "../words";

/** common are the resources at the top of the list. */
const common = ["pods", "deployments.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch", "cronjobs.batch", "services", "ingresses.networking.k8s.io", "configmaps", "secrets", "persistentvolumeclaims", "nodes", "namespaces", "events"];
const full = (r: Resource) => r.plural + (r.group ? "." + r.group : "");

/** Objects is the browser of all resources. */
export function Objects() {
  const [all] = createResource(resources);
  const listed = createMemo(() => (all.error ? [] : (all() ?? [])).filter((r) => r.verbs.includes("list")));
  const groups = createMemo(() => {
    const out = new Map<string, Resource[]>();
    for (const c of common) {
      const r = listed().find((r) => full(r) === c);
      if (r) out.set("Common", [...(out.get("Common") ?? []), r]);
    }
    for (const r of [...listed()].sort((a, b) => a.group.localeCompare(b.group) || a.plural.localeCompare(b.plural))) {
      const g = r.group || "core";
      out.set(g, [...(out.get(g) ?? []), r]);
    }
    return [...out];
  });
  const current = () => {
    const [, group, version, plural] = route().path;
    return listed().find((r) => (r.group || "core") === (group ?? "core") && r.plural === (plural ?? "pods") && (!version || r.version === version));
  };
  return (
    <main id="main" class="browser">
      <nav class="kinds" aria-label="Resources" tabindex="0">
        <Show when={all.error}><p class="bad">{said(all.error)}</p></Show>
        <For each={groups()}>
          {([g, rs]) => (
            <section>
              <h2>{g}</h2>
              <ul>
                <For each={rs}>{(r) => <li><a href={link(["objects", r.group || "core", r.version, r.plural])} aria-current={current() === r ? "page" : undefined}>{r.plural}</a></li>}</For>
              </ul>
            </section>
          )}
        </For>
      </nav>
      <label class="kindchoice">
        Resource
        <select onChange={(e) => go(e.currentTarget.value)}>
          <For each={groups()}>{([g, rs]) => <optgroup label={g}><For each={rs}>{(r) => <option value={link(["objects", r.group || "core", r.version, r.plural])} selected={current() === r}>{r.plural}</option>}</For></optgroup>}</For>
        </select>
      </label>
      <Show when={current()} keyed fallback={<Show when={!all.loading}><p class="empty">The server has no such resource.</p></Show>}>{(r) => <List resource={r} />}</Show>
    </main>
  );
}

const page = 250, mostRows = 2000;

function List(props: { resource: Resource }) {
  const r = props.resource;
  const [columns, setColumns] = createSignal<NonNullable<Table["columnDefinitions"]>>([]);
  const [rows, setRows] = createSignal<TableRow[]>([]);
  const [more, setMore] = createSignal({ token: "", remaining: 0 });
  const [error, setError] = createSignal("");
  const [loading, setLoading] = createSignal(true);
  const [filter, setFilter] = createSignal(route().query.get("q") ?? "");
  const [wide, setWide] = createSignal(false);
  const [sort, setSort] = createSignal<{ column: number; down: boolean } | null>(null);
  let abort = new AbortController();

  // With = or a comma it is a selector of labels, and the server filters.
  const selector = () => (/[=]/.test(filter()) ? filter() : "");
  const where = () => path(r, r.namespaced ? namespace() : "");
  const query = (q: Record<string, string>) => "?" + new URLSearchParams({ ...(selector() && { labelSelector: selector() }), ...q });

  async function load(token = "") {
    const mine = token ? abort : new AbortController();
    if (!token) {
      abort.abort();
      abort = mine;
    }
    setLoading(true);
    try {
      const res = await request(where() + query({ limit: String(page), ...(token && { continue: token }) }), { signal: mine.signal, headers: { Accept: asTable } });
      const t = (await res.json()) as Table;
      if (mine.signal.aborted) return;
      if (t.columnDefinitions?.length) setColumns(t.columnDefinitions);
      setRows(token ? [...rows(), ...(t.rows ?? [])] : (t.rows ?? []));
      setMore({ token: t.metadata.continue ?? "", remaining: t.metadata.remainingItemCount ?? 0 });
      setError("");
      setLoading(false);
      if (!t.metadata.continue && !token && !moment() && r.verbs.includes("watch")) void follow(t.metadata.resourceVersion, mine);
    } catch (e) {
      if (mine.signal.aborted) return;
      setLoading(false);
      setError(said(e));
    }
  }

  /** follow keeps the rows as they are on the server; events are taken together, at most five times a second. */
  async function follow(revision: string, mine: AbortController) {
    let pending: { type: string; object: unknown }[] = [], timer = 0;
    const apply = () => {
      timer = 0;
      const by = new Map(rows().map((row) => [row.object.metadata.uid, row]));
      for (const e of pending) {
        for (const row of (e.object as Table).rows ?? []) {
          if (e.type === "DELETED") by.delete(row.object.metadata.uid);
          else if (e.type !== "BOOKMARK") by.set(row.object.metadata.uid, row);
        }
      }
      pending = [];
      setRows([...by.values()].slice(0, mostRows));
    };
    try {
      await watch(where() + query({ watch: "1", resourceVersion: revision, allowWatchBookmarks: "true" }), asTable, mine.signal, (events) => {
        if (events.some((e) => e.type === "ERROR")) throw new Error("expired");
        pending.push(...events);
        timer ||= window.setTimeout(apply, 200);
      });
    } catch {
      // The list is read again below.
    }
    clearTimeout(timer);
    if (!mine.signal.aborted) setTimeout(() => !mine.signal.aborted && load(), 1000);
  }

  createEffect(on([moment, namespace, selector], () => {
    setRows([]);
    void load();
  }));
  // A page that nobody sees holds no connection.
  const visible = () => (document.visibilityState === "visible" ? abort.signal.aborted && load() : abort.abort());
  document.addEventListener("visibilitychange", visible);
  onCleanup(() => {
    document.removeEventListener("visibilitychange", visible);
    abort.abort();
  });

  const shownColumns = createMemo(() => columns().map((c, i) => ({ ...c, i })).filter((c) => wide() || c.priority === 0));
  const shown = createMemo(() => {
    const f = selector() ? "" : filter().toLowerCase();
    let out = f ? rows().filter((row) => (row.object.metadata.namespace + "/" + row.cells.join(" ")).toLowerCase().includes(f)) : rows();
    const s = sort();
    if (s) {
      const by = new Intl.Collator("en", { numeric: true }).compare;
      out = [...out].sort((a, b) => by(String(a.cells[s.column] ?? ""), String(b.cells[s.column] ?? "")) * (s.down ? -1 : 1));
    }
    return out;
  });
  const spaced = () => r.namespaced && !namespace();

  // Up and down go from row to row.
  const onKey = (e: KeyboardEvent & { currentTarget: HTMLElement }) => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[e.key];
    if (!by || !(e.target instanceof HTMLAnchorElement)) return;
    const links = [...e.currentTarget.querySelectorAll<HTMLElement>("tbody a")];
    links[links.indexOf(e.target) + by]?.focus();
    e.preventDefault();
  };

  return (
    <div class="scroll list" onKeyDown={onKey} tabindex="0" role="region" aria-label={r.plural}>
      <div class="bar">
        <h2>{r.kind}</h2>
        <label class="grow"><span class="quiet">Filter</span><input type="search" id="filter" placeholder="Filter, or labels: app=web" value={filter()} onInput={(e) => setFilter(e.currentTarget.value)} /></label>
        <span class="note">{figure(shown().length)}{more().token ? ` of ${figure(rows().length + more().remaining)}` : ""}</span>
        <button aria-pressed={wide()} onClick={() => setWide(!wide())}>All columns</button>
      </div>
      <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
      <table class="rows">
        <caption class="quiet">{r.plural}</caption>
        <thead>
          <tr>
            <Show when={spaced()}><th scope="col">Namespace</th></Show>
            <For each={shownColumns()}>
              {(c) => (
                <th scope="col" title={c.description} aria-sort={sort()?.column === c.i ? (sort()!.down ? "descending" : "ascending") : undefined}>
                  <button class="sort" onClick={() => setSort(sort()?.column === c.i ? (sort()!.down ? null : { column: c.i, down: true }) : { column: c.i, down: false })}>{c.name}</button>
                </th>
              )}
            </For>
          </tr>
        </thead>
        <tbody>
          <For each={shown()}>
            {(row) => (
              <tr>
                <Show when={spaced()}><td>{row.object.metadata.namespace}</td></Show>
                <For each={shownColumns()}>
                  {(c, i) => (
                    <Show when={i() === 0} fallback={<td>{text(row.cells[c.i])}</td>}>
                      <th scope="row"><a href={link(["object", r.group || "core", r.version, r.plural, row.object.metadata.namespace ?? "-", row.object.metadata.name])}>{text(row.cells[c.i])}</a></th>
                    </Show>
                  )}
                </For>
              </tr>
            )}
          </For>
        </tbody>
      </table>
      <Show when={!loading() && !error() && shown().length === 0}>
        <p class="empty">{rows().length ? "None matches the filter." : `No ${r.plural}${namespace() && r.namespaced ? ` in ${namespace()}` : ""}${moment() ? " at that time" : ""}.`}</p>
      </Show>
      <Show when={more().token && rows().length < mostRows}><p class="bar"><button disabled={loading()} onClick={() => load(more().token)}>{figure(Math.min(page, more().remaining || page))} more</button></p></Show>
      <Show when={more().token && rows().length >= mostRows}><p class="note">More are not shown: choose a namespace, or labels.</p></Show>
    </div>
  );
}

const text = (v: unknown): string => (v === null || v === undefined ? "" : typeof v === "object" ? JSON.stringify(v) : String(v));
