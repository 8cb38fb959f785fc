import { createEffect, createSignal, ErrorBoundary, For, lazy, Match, on, Show, Suspense, Switch } from "solid-js";
import { asTable, json, said, type Table } from "./api";
import { by, hello, moment, namespace, setNamespace, status, stream } from "./live";
import { stages } from "./pace";
import { link, route } from "./route";
import { spoken } from "./say";
import { setTheme, theme } from "./theme";
import { Palette } from "./views/Palette";
import { Picture } from "./views/Picture";
import { Time } from "./views/Time";

const Objects = lazy(() => import("./views/Objects").then((m) => ({ default: m.Objects })));
const Detail = lazy(() => import("./views/Detail").then((m) => ({ default: m.Detail })));
const Server = lazy(() => import("./views/Server").then((m) => ({ default: m.Server })));
const Changes = lazy(() => import("./views/Changes").then((m) => ({ default: m.Changes })));

export function App() {
  // The whole at once would be a long task.
  const stage = stages(4);
  const view = () => route().path[0] ?? "";
  createEffect(() => document.documentElement.classList.toggle("past", moment() !== ""));
  createEffect(() => {
    document.title = ["Keelson", view() === "object" ? route().path[5] : view() === "objects" ? (route().path[3] ?? "Objects") : view() === "changes" ? "Changes" : view() === "server" ? "API server" : ""].filter(Boolean).reverse().join(" – ");
  });
  return (
    <>
      <header>
        <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); const m = document.querySelector<HTMLElement>("main:not([hidden])"); m?.setAttribute("tabindex", "-1"); m?.focus(); }}>To the content</a>
        <h1>Keelson</h1>
        <nav aria-label="Views">
          <a href={link([], { by: by() === "zone" ? "" : by() })} aria-current={view() === "" ? "page" : undefined}>Cluster</a>
          <a href="#/objects" aria-current={view() === "objects" || view() === "object" ? "page" : undefined}>Objects</a>
          <a href="#/changes" aria-current={view() === "changes" ? "page" : undefined}>Changes</a>
          <a href="#/server" aria-current={view() === "server" ? "page" : undefined}>Server</a>
        </nav>
        <span class="rest" />
        <Show when={stage() > 3}><Palette /></Show>
        <Namespaces />
        <Show when={hello()}>{(h) => <span class="user" title="The user of the kubeconfig">{h().user}</span>}</Show>
        <button class="plain" onClick={() => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark")} title={`Colours: ${theme()}`} aria-label="Switch between light and dark"><svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="6" /><path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor" /></svg></button>
      </header>
      <div class="views">
        <Show when={stage() > 0}><Picture shown={view() === ""} aside={stage() > 1} /></Show>
        <ErrorBoundary fallback={(e, reset) => { createEffect(on(route, reset, { defer: true })); return <main id="main"><p class="bad empty" role="alert">{said(e)}</p></main>; }}>
        <Suspense>
          <Switch>
            <Match when={view() === "objects"}><Objects /></Match>
            <Match when={view() === "object"}><Detail /></Match>
            <Match when={view() === "changes"}><Changes /></Match>
            <Match when={view() === "server"}><Server /></Match>
          </Switch>
        </Suspense>
        </ErrorBoundary>
      </div>
      <Show when={stage() > 2} fallback={<footer class="time" />}><Time /></Show>
      <p class="quiet" role="status">{spoken()}</p>
    </>
  );
}

/** Namespaces chooses the namespace of tables and changes, and of the picture for a user who may not read all. */
function Namespaces() {
  const [names, setNames] = createSignal<string[]>([]);
  const load = () => {
    json<Table>("/api/v1/namespaces?limit=500", asTable, { now: true }).then((t) => setNames((t.rows ?? []).map((r) => r.object.metadata.name)), () => {});
  };
  const choose = (ns: string) => {
    setNamespace(ns.trim());
    if (status().state === "failed" || hello()?.may?.pods === false) stream(ns.trim());
  };
  return (
    <label class="namespace">
      <span class="quiet">Namespace</span>
      <input list="namespaces" placeholder="All namespaces" value={namespace()} onFocus={load} onChange={(e) => choose(e.currentTarget.value)} spellcheck={false} />
      <datalist id="namespaces"><For each={names()}>{(n) => <option value={n} />}</For></datalist>
    </label>
  );
}
