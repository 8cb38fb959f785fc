import { createEffect, createSignal, ErrorBoundary, For, lazy, Match, on, Show, Suspense, Switch } from "solid-js";
import { asTable, json, said, type Table } from "./api";
import { hello, moment, namespace, setNamespace, status, stream } from "./live";
import { route } from "./route";
import { spoken } from "./say";
import { setTheme, theme } from "./theme";
import { Palette } from "./views/Palette";
import { Picture } from "./views/Picture";
import { Time } from "./views/Time";

const Objects = lazy(() => import("./views/Objects").then((m) => ({ default: m.Objects })));
const Detail = lazy(() => import("./views/Detail").then((m) => ({ default: m.Detail })));
const Changes = lazy(() => import("./views/Changes").then((m) => ({ default: m.Changes })));

export function App() {
  const view = () => route().path[0] ?? "";
  createEffect(() => document.documentElement.classList.toggle("past", moment() !== ""));
  createEffect(() => {
    document.title = ["Keelson", view() === "object" ? route().path[5] : view() === "objects" ? (route().path[3] ?? "Objects") : view() === "changes" ? "Changes" : ""].filter(Boolean).reverse().join(" – ");
  });
  return (
    <>
      <header>
        <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); const m = document.querySelector<HTMLElement>("main:not([hidden])"); m?.setAttribute("tabindex", "-1"); m?.focus(); }}>To the content</a>
        <h1>Keelson</h1>
        <nav aria-label="Views">
          <a href="#/" aria-current={view() === "" ? "page" : undefined}>Cluster</a>
          <a href="#/objects" aria-current={view() === "objects" || view() === "object" ? "page" : undefined}>Objects</a>
          <a href="#/changes" aria-current={view() === "changes" ? "page" : undefined}>Changes</a>
        </nav>
        <span class="rest" />
        <Palette />
        <Namespaces />
        <Show when={hello()}>{(h) => <span class="user" title="The user of the kubeconfig">{h().user}</span>}</Show>
        <button class="plain" onClick={() => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark")} title={`Colours: ${theme()}`} aria-label="Switch between light and dark">◐</button>
      </header>
      <div class="views">
        <Picture shown={view() === ""} />
        <ErrorBoundary fallback={(e, reset) => { createEffect(on(route, reset, { defer: true })); return <main id="main"><p class="bad empty" role="alert">{said(e)}</p></main>; }}>
        <Suspense>
          <Switch>
            <Match when={view() === "objects"}><Objects /></Match>
            <Match when={view() === "object"}><Detail /></Match>
            <Match when={view() === "changes"}><Changes /></Match>
          </Switch>
        </Suspense>
        </ErrorBoundary>
      </div>
      <Time />
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
