import { createEffect, createSignal, on, onCleanup, Show } from "solid-js";
import { Failure, json, request, said } from "../api";
import { moment } from "../live";
import { path } from "../path";
import { say } from "../say";
import { merge } from "../diff";
import { toYAML, withoutFields } from "../yaml";
import { Diff } from "./Diff";
import { type Meta, metadataOnly } from "./Detail";

type Stage = "read" | "edit" | "review";

const applied = "kubectl.kubernetes.io/last-applied-configuration";

/** Yaml shows an object's YAML, and changes it: edit, review what the server would make of it, apply. */
export function Yaml(props: { at: { group: string; version: string; plural: string; namespace: string; name: string }; writable: boolean; changed: () => void }) {
  const secret = () => props.at.group === "" && props.at.plural === "secrets";
  const [asked, setAsked] = createSignal(false);
  const [text, setText] = createSignal<string | null>(null);
  const [stage, setStage] = createSignal<Stage>("read");
  const [error, setError] = createSignal<Failure | Error | null>(null);
  const [review, setReview] = createSignal("");
  const [busy, setBusy] = createSignal(false);
  let edited = "";
  let abort = new AbortController();
  const where = () => path(props.at, props.at.namespace, props.at.name);

  async function load() {
    abort.abort();
    const mine = (abort = new AbortController());
    setError(null);
    try {
      let t: string;
      if (secret() && !asked()) {
        const o = await json<{ metadata: Meta & { managedFields?: unknown } }>(where(), metadataOnly, { signal: mine.signal });
        delete o.metadata.managedFields;
        // What kubectl apply keeps has the data, too.
        if (o.metadata.annotations?.[applied]) o.metadata.annotations[applied] = "(not shown)";
        t = toYAML({ apiVersion: "v1", kind: "Secret", metadata: o.metadata });
      } else t = withoutFields(await (await request(where(), { signal: mine.signal, headers: { Accept: "application/yaml" } })).text());
      if (!mine.signal.aborted) setText(t);
    } catch (e) {
      if (!mine.signal.aborted) setError(e as Error);
    }
  }
  createEffect(on([moment, asked], () => {
    setStage("read");
    void load();
  }));
  onCleanup(() => abort.abort());

  const put = (dry: boolean) =>
    request(where() + "?" + new URLSearchParams({ fieldManager: "keelson-dash", fieldValidation: "Strict", ...(dry && { dryRun: "All" }) }), {
      method: "PUT", now: true, body: edited, headers: { "Content-Type": "application/yaml", Accept: "application/yaml" },
    });

  async function check() {
    setBusy(true);
    setError(null);
    try {
      setReview(withoutFields(await (await put(true)).text()));
      setStage("review");
      say("The server would accept this; the difference is shown");
    } catch (e) {
      setError(e as Error);
    }
    setBusy(false);
  }
  async function apply() {
    setBusy(true);
    setError(null);
    try {
      setText(withoutFields(await (await put(false)).text()));
      setStage("read");
      say("Applied");
      props.changed();
    } catch (e) {
      setError(e as Error);
    }
    setBusy(false);
  }
  /** rebase makes the user's changes in what the object has become. */
  async function rebase() {
    setBusy(true);
    try {
      const theirs = withoutFields(await (await request(where(), { now: true, headers: { Accept: "application/yaml" } })).text());
      const merged = merge(text()!, edited, theirs);
      if (merged === null) setError(new Error("The same lines have been changed: cancel, and edit the object as it is now."));
      else {
        setText(theirs);
        edited = merged;
        await check();
      }
    } catch (e) {
      setError(e as Error);
    }
    setBusy(false);
  }
  const conflict = () => error() instanceof Failure && (error() as Failure).code === 409;

  return (
    <div class="yaml">
      <div class="bar">
        <Show when={stage() === "read"}>
          <Show when={secret() && !asked()}><button onClick={() => setAsked(true)}>Show the data</button></Show>
          <Show when={props.writable && !moment() && text() !== null && (!secret() || asked())}><button onClick={() => { edited = text()!; setStage("edit"); }}>Edit</button></Show>
          <Show when={moment()}><span class="note">As it was. The past cannot be changed.</span></Show>
        </Show>
        <Show when={stage() === "edit"}>
          <button class="main" disabled={busy()} onClick={check}>Review</button>
          <button onClick={() => { setStage("read"); setError(null); }}>Cancel</button>
          <span class="note">The server checks it first, and changes nothing.</span>
        </Show>
        <Show when={stage() === "review"}>
          <button class="main" disabled={busy()} onClick={apply}>Apply</button>
          <button onClick={() => setStage("edit")}>Back to the editor</button>
          <span class="note">What the server would make of it.</span>
        </Show>
      </div>
      <Show when={error()}>
        <p class="bad" role="alert">
          {said(error())} <Show when={conflict()}><button disabled={busy()} onClick={rebase}>Make my changes in it as it is now</button></Show>
        </p>
      </Show>
      <div class="scroll" tabindex="0" role="region" aria-label="YAML">
        <Show when={stage() === "read" && text() !== null}><pre>{text()}</pre></Show>
        <Show when={stage() === "edit"}><Editor text={edited} changed={(t) => (edited = t)} review={check} /></Show>
        <Show when={stage() === "review"}><Diff before={text()!} after={review()} /></Show>
      </div>
    </div>
  );
}

/** Editor is CodeMirror, which is loaded with the first. */
function Editor(props: { text: string; changed: (t: string) => void; review: () => void }) {
  let host!: HTMLDivElement;
  const [error, setError] = createSignal("");
  createEffect(() => {
    let gone = false, close = () => {};
    import("../editor").then((m) => {
      if (!gone) close = m.edit(host, props.text, props.changed, props.review);
    }, (e) => setError(said(e)));
    onCleanup(() => {
      gone = true;
      close();
    });
  });
  return <><Show when={error()}><p class="bad">{error()}</p></Show><div class="editor" ref={host} /></>;
}
