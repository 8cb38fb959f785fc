import { createEffect, createSignal, For, on, onCleanup, onMount, Show } from "solid-js";
import type { Drawing, Line } from "../chart";
import type { History } from "../series";
import { painted } from "../theme";
import { time } from "../words";

/** rows is how many of the last samples the table has. */
const rows = 60;

/** every calls f at once, and again so many ms after it has ended, as long as the view is open and the page is seen. */
export function every(ms: number, f: (signal: AbortSignal) => Promise<void>) {
  const abort = new AbortController();
  let timer = 0, busy = false;
  const run = async () => {
    clearTimeout(timer);
    if (busy || abort.signal.aborted || document.visibilityState !== "visible") return;
    busy = true;
    await f(abort.signal).finally(() => (busy = false));
    if (!abort.signal.aborted) timer = window.setTimeout(run, ms);
  };
  document.addEventListener("visibilitychange", run);
  onCleanup(() => {
    abort.abort();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  });
  void run();
}

/** Chart shows a history as lines, as the sample that is pointed at, and as a table. Version changes with the history. */
export function Chart(props: { title: string; of?: string; lines: Line[]; history: History; version: number; unit: (v: number) => string }) {
  let host!: HTMLDivElement, drawing: Drawing | undefined;
  const [at, setAt] = createSignal(-1);
  const samples = () => (props.version, props.history.times.length);
  const shown = () => (at() >= 0 && at() < samples() ? at() : samples() - 1);
  const value = (line: number, i: number) => {
    const v = (props.version, props.history.lines[line]?.[i]);
    return v == null ? "–" : props.unit(v);
  };
  onMount(() => {
    let over = false;
    onCleanup(() => {
      over = true;
      drawing?.destroy();
    });
    void import("../chart").then((m) => {
      if (over) return;
      // Other colours or lines are another drawing.
      createEffect(on([painted, () => props.lines], () => {
        drawing?.destroy();
        drawing = m.draw(host, props.lines, props.unit, setAt);
        drawing.data(props.history.times, props.history.lines);
      }));
      createEffect(on(() => props.version, () => drawing?.data(props.history.times, props.history.lines), { defer: true }));
    });
  });
  const onKey = (e: KeyboardEvent) => {
    const to = { ArrowLeft: shown() - 1, ArrowRight: shown() + 1, Home: 0, End: samples() - 1 }[e.key];
    if (e.key === "Escape") drawing?.point(-1);
    else if (to === undefined) return;
    else drawing?.point(Math.max(0, Math.min(samples() - 1, to)));
    e.preventDefault();
  };
  return (
    <figure class="chart">
      <figcaption>
        <h3>{props.title}</h3> <span class="note">{props.of}</span>
        <output>
          <Show when={samples()} fallback="Nothing is measured yet">
            <span class="note">{time(props.history.times[shown()] * 1000)}</span>
            <For each={props.lines}>{(l, i) => <span class="value"><i class="stroke" classList={{ dashed: !!l.dash }} style={{ "border-color": `var(${l.color})` }} aria-hidden="true" />{l.label} <b>{value(i(), shown())}</b></span>}</For>
          </Show>
        </output>
      </figcaption>
      <div class="plot" ref={host} tabindex="0" role="group" aria-label={`${props.title} over time: arrow keys go from sample to sample, the table below has the same`} onKeyDown={onKey} />
      <details>
        <summary>{props.title} as a table</summary>
        <table class="rows">
          <caption class="quiet">{props.title}, the latest first</caption>
          <thead><tr><th scope="col">Time</th><For each={props.lines}>{(l) => <th scope="col" class="number">{l.label}</th>}</For></tr></thead>
          <tbody>
            <For each={Array.from({ length: Math.min(rows, samples()) }, (_, k) => samples() - 1 - k)}>
              {(i) => <tr><th scope="row">{time(props.history.times[i] * 1000)}</th><For each={props.lines}>{(_, l) => <td class="number">{value(l(), i)}</td>}</For></tr>}
            </For>
          </tbody>
        </table>
      </details>
    </figure>
  );
}
