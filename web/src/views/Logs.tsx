import { createEffect, createSignal, For, on, onCleanup, Show } from "solid-js";
import { Failure, json, pieces, request, said, watch } from "../api";
import { segment } from "../path";

const mostText = 1 << 20; // characters that are kept

interface Status {
  name: string;
  restartCount: number;
  state?: { terminated?: { exitCode: number; reason?: string }; running?: object };
}

interface Pod {
  metadata: { uid: string; resourceVersion: string; deletionTimestamp?: string };
  status?: { containerStatuses?: Status[]; initContainerStatuses?: Status[]; ephemeralContainerStatuses?: Status[] };
}

/** statusOf is the status of a container of any kind. */
const statusOf = (p: Pod, container: string): Status | undefined =>
  [p.status?.containerStatuses, p.status?.initContainerStatuses, p.status?.ephemeralContainerStatuses].flatMap((l) => l ?? []).find((s) => s.name === container);

/** outcome says what became of a container whose log has ended; "" as long as that is not known. */
function outcome(p: Pod, container: string, restarts: number): string {
  const s = statusOf(p, container), t = s?.state?.terminated;
  if (s && s.restartCount > restarts) return "The container was started again.";
  if (t) return `The container has ended with exit code ${t.exitCode}${t.reason ? ` (${t.reason})` : ""}.`;
  return p.metadata.deletionTimestamp ? "The pod is being deleted." : "";
}

/** Logs follows the log of a container. */
export function Logs(props: { namespace: string; name: string; uid: string; containers: string[] }) {
  const [container, setContainer] = createSignal(props.containers[0] ?? "");
  const [previous, setPrevious] = createSignal(false);
  const [follow, setFollow] = createSignal(true);
  const [times, setTimes] = createSignal(false);
  const [error, setError] = createSignal("");
  const [ended, setEnded] = createSignal("");
  const [again, setAgain] = createSignal(0);
  let box!: HTMLPreElement, abort = new AbortController();
  const pods = `/api/v1/namespaces/${segment(props.namespace)}/pods`, path = `${pods}/${segment(props.name)}`;

  /** explain says why a log that was followed has ended, as soon as the server knows. */
  async function explain(signal: AbortSignal, restarts: number) {
    const tell = (text: string) => !signal.aborted && text && setEnded(`The log has ended. ${text}`);
    const gone = () => tell("The pod is gone.");
    try {
      const p = await json<Pod>(path, "application/json", { signal, now: true });
      if (p.metadata.uid !== props.uid) return gone();
      tell(outcome(p, container(), restarts));
      const q = new URLSearchParams({ watch: "true", fieldSelector: `metadata.name=${props.name}`, resourceVersion: p.metadata.resourceVersion });
      await watch(`${pods}?${q}`, "application/json", signal, (events) => {
        for (const e of events) {
          if (e.type === "DELETED") gone();
          else if (e.type === "MODIFIED" && (e.object as Pod).metadata.uid === props.uid) tell(outcome(e.object as Pod, container(), restarts));
        }
      });
    } catch (e) {
      if (e instanceof Failure && e.code === 404) gone();
      // Who may read the log only is told no more.
    }
  }

  createEffect(on([container, previous, follow, times, again], () => {
    abort.abort();
    const mine = (abort = new AbortController());
    setError("");
    setEnded("");
    box.textContent = "";
    let pending = "", length = 0, frame = 0;
    const lengths: number[] = [];
    // What has come is written once a frame; the oldest is dropped.
    const write = () => {
      frame = 0;
      if (mine.signal.aborted) return;
      const below = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      box.append(document.createTextNode(pending));
      length += pending.length;
      lengths.push(pending.length);
      pending = "";
      while (length > mostText && box.firstChild && lengths.length > 1) {
        length -= lengths.shift()!;
        box.firstChild.remove();
      }
      if (below) box.scrollTop = box.scrollHeight;
    };
    const q = new URLSearchParams({ container: container(), tailLines: "1000", limitBytes: String(16 << 20), ...(previous() && { previous: "true" }), ...(follow() && !previous() && { follow: "true" }), ...(times() && { timestamps: "true" }) });
    if (follow() && !previous()) q.delete("limitBytes");
    // How often the container had been started before tells whether it was again.
    const restarts = q.has("follow") ? json<Pod>(path, "application/json", { signal: mine.signal, now: true }).then((p) => statusOf(p, container())?.restartCount ?? 0, () => 0) : null;
    request(`${path}/log?${q}`, { signal: mine.signal })
      .then((res) => pieces(res, (t) => {
        pending += t;
        if (pending.length > mostText) pending = pending.slice(-mostText);
        frame ||= requestAnimationFrame(write);
      }))
      .then(async () => {
        if (mine.signal.aborted) return;
        setEnded("The log has ended.");
        if (restarts) await explain(mine.signal, await restarts);
      }, (e) => !mine.signal.aborted && setError(said(e)));
  }, { defer: false }));
  onCleanup(() => abort.abort());

  return (
    <div class="logs">
      <div class="bar">
        <label>Container <select onChange={(e) => setContainer(e.currentTarget.value)}><For each={props.containers}>{(c) => <option>{c}</option>}</For></select></label>
        <label><input type="checkbox" checked={follow()} onChange={(e) => setFollow(e.currentTarget.checked)} /> Follow</label>
        <label><input type="checkbox" checked={previous()} onChange={(e) => setPrevious(e.currentTarget.checked)} /> Previous container</label>
        <label><input type="checkbox" checked={times()} onChange={(e) => setTimes(e.currentTarget.checked)} /> Times</label>
        <Show when={ended() || error()}><button onClick={() => setAgain(again() + 1)}>Read again</button></Show>
        <span class="note" role="status">{ended()}</span>
      </div>
      <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
      <pre class="scroll" ref={box} tabindex="0" role="log" aria-live="off" aria-label="Log" />
    </div>
  );
}
