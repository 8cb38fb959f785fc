import { createEffect, createSignal, For, on, onCleanup, Show } from "solid-js";
import { pieces, request, said } from "../api";
import { segment } from "../path";

const mostText = 1 << 20; // characters that are kept

/** Logs follows the log of a container. */
export function Logs(props: { namespace: string; name: string; containers: string[] }) {
  const [container, setContainer] = createSignal(props.containers[0] ?? "");
  const [previous, setPrevious] = createSignal(false);
  const [follow, setFollow] = createSignal(true);
  const [times, setTimes] = createSignal(false);
  const [error, setError] = createSignal("");
  const [ended, setEnded] = createSignal(false);
  let box!: HTMLPreElement, abort = new AbortController();

  createEffect(on([container, previous, follow, times], () => {
    abort.abort();
    const mine = (abort = new AbortController());
    setError("");
    setEnded(false);
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
    request(`/api/v1/namespaces/${segment(props.namespace)}/pods/${segment(props.name)}/log?${q}`, { signal: mine.signal })
      .then((res) => pieces(res, (t) => {
        pending += t;
        if (pending.length > mostText) pending = pending.slice(-mostText);
        frame ||= requestAnimationFrame(write);
      }))
      .then(() => !mine.signal.aborted && setEnded(true), (e) => !mine.signal.aborted && setError(said(e)));
  }, { defer: false }));
  onCleanup(() => abort.abort());

  return (
    <div class="logs">
      <div class="bar">
        <label>Container <select onChange={(e) => setContainer(e.currentTarget.value)}><For each={props.containers}>{(c) => <option>{c}</option>}</For></select></label>
        <label><input type="checkbox" checked={follow()} onChange={(e) => setFollow(e.currentTarget.checked)} /> Follow</label>
        <label><input type="checkbox" checked={previous()} onChange={(e) => setPrevious(e.currentTarget.checked)} /> Previous container</label>
        <label><input type="checkbox" checked={times()} onChange={(e) => setTimes(e.currentTarget.checked)} /> Times</label>
        <Show when={ended()}><span class="note">The log has ended.</span></Show>
      </div>
      <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
      <pre class="scroll" ref={box} tabindex="0" role="log" aria-live="off" aria-label="Log" />
    </div>
  );
}
