import { createMemo, createResource, createSignal, For, Show } from "solid-js";
import { json, said } from "../api";
import { moment } from "../live";
import { type Answer, range, timeline, type TraceStep } from "../trace";
import { clock } from "../words";

const length = (v: number): string => (v < 1 ? `${v.toFixed(2)} ms` : v < 1000 ? `${v.toFixed(1)} ms` : v < 120_000 ? `${(v / 1000).toFixed(2)} s` : `${(v / 60_000).toFixed(1)} min`);

/** Trace is the way of an object as a tree on a time line. */
export function Trace(props: { group: string; plural: string; namespace: string; name: string }) {
  const [answer, { refetch }] = createResource(() => json<Answer>(`/debug/keelson/trace?${new URLSearchParams({ group: props.group, resource: props.plural, namespace: props.namespace, name: props.name })}`, "application/json", { now: true }));
  const all = createMemo(() => (answer.error || !answer() ? null : timeline(answer()!.uid, answer()!.steps ?? [])));
  // The line shows a part: what happens hours after the rest would leave that no room.
  const [whole, setWhole] = createSignal(false);
  const first = createMemo((): [number, number] => (all() ? range(all()!, answer()!) : [0, 1]));
  const shown = (): [number, number] => (whole() ? [0, all()!.length] : first());
  const part = () => first()[0] > 0 || first()[1] < all()!.length;
  const at = (v: number) => ((Math.min(v, shown()[1]) - shown()[0]) / (shown()[1] - shown()[0])) * 100;
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Trace">
      <Show when={answer.error}><p class="bad" role="alert">{said(answer.error)}</p></Show>
      <Show when={all()}>
        {(t) => (
          <Show when={t().bars.length} fallback={<p class="empty">Nothing is recorded of it. The record begins when the server starts.</p>}>
            <div class="bar">
              <span>{t().bars.length} steps in {length(t().length)}, from {clock(t().begin)}</span>
              <Show when={part()}><button aria-pressed={!whole()} onClick={() => setWhole(!whole())}>{answer()!.totalMs ? "Only what was asked for last" : `Only the first ${length(first()[1])}`}</button></Show>
              <button onClick={refetch}>Read again</button>
              <Show when={moment()}><span class="note">The trace is of the present.</span></Show>
            </div>
            <Show when={answer()!.totalMs || answer()!.waits?.length}>
              <ul class="findings">
                <Show when={answer()!.totalMs}><li>What was asked for last took <b>{length(answer()!.totalMs!)}</b>; the critical path is marked.</li></Show>
                <For each={answer()!.lost}>{(l) => <li><b>{length(l.ms)}</b> lost: {l.what}</li>}</For>
                <For each={answer()!.waits}>{(w) => <li><b class="bad">{w.object}</b> waits for {w.for}{w.who ? `. Who could change it: ${w.who}` : ""}</li>}</For>
              </ul>
            </Show>
            <table class="timeline">
              <caption class="quiet">Steps with their beginning and length</caption>
              <thead>
                <tr>
                  <th scope="col">Step</th>
                  <th scope="col">By</th>
                  <th scope="col" class="number">At</th>
                  <th scope="col" class="number">Took</th>
                  <th scope="col" class="line"><span class="quiet">On the time line</span><Ruler from={shown()[0]} to={shown()[1]} /></th>
                </tr>
              </thead>
              <tbody>
                <For each={t().bars}>
                  {(b) => (
                    <tr classList={{ critical: b.step.critical, head: b.first }}>
                      <th scope="row">
                        <Show when={b.first}><span class="object" style={{ "padding-left": `${b.depth * 14}px` }}>{b.step.resource.split(".")[0]} <b>{b.step.name}</b></span></Show>
                        <span class="step" style={{ "padding-left": `${b.depth * 14 + 14}px` }}>
                          {b.step.phase ?? b.step.verb}{b.step.subresource ? " " + b.step.subresource : ""} <span class="note">{[b.step.what, b.step.detail].filter(Boolean).join(", ")}</span>
                          <Show when={b.step.critical}><span class="quiet">, on the critical path</span></Show>
                        </span>
                      </th>
                      <td>{b.step.actor}{b.step.node && !b.step.actor.includes(b.step.node) ? " on " + b.step.node : ""}</td>
                      <td class="number">{length(Math.max(0, b.begin))}</td>
                      <td class="number">{b.step.ms ? length(b.step.ms) : ""}</td>
                      <td class="line" title={parts(b.step)}>
                        <Show when={b.begin <= shown()[1] && b.end >= shown()[0]}>
                          <i style={{ left: `${Math.max(0, at(b.begin))}%`, width: `max(3px, ${at(b.end) - Math.max(0, at(b.begin))}%)` }} />
                          <Show when={(b.step.wokeMs ?? 0) > (b.step.ms ?? 0)}><em style={{ left: `${Math.max(0, at(b.end - b.step.wokeMs!))}%`, width: `${Math.max(0, at(b.begin) - Math.max(0, at(b.end - b.step.wokeMs!)))}%` }} /></Show>
                        </Show>
                      </td>
                    </tr>
                  )}
                </For>
              </tbody>
            </table>
            <Show when={t().more}><p class="note">{t().more} more steps: see keelson trace.</p></Show>
          </Show>
        )}
      </Show>
    </div>
  );
}

function parts(s: TraceStep): string {
  const out = [s.admissionMs && `admission ${length(s.admissionMs)}`, s.validationMs && `validation ${length(s.validationMs)}`, s.storeMs && `store ${length(s.storeMs)}`, ...(s.parts ?? []).map((p) => `${p.name} ${length(p.ms)}${p.detail ? " " + p.detail : ""}`)];
  return out.filter(Boolean).join(", ");
}

function Ruler(props: { from: number; to: number }) {
  const ticks = () => {
    const size = props.to - props.from, unit = 10 ** Math.floor(Math.log10(size / 4)), step = [1, 2, 5, 10].map((m) => m * unit).find((s) => size / s <= 5) ?? size;
    const out: number[] = [];
    for (let t = Math.ceil(props.from / step) * step; t <= props.from + size * 0.94 && out.length < 12; t += step) out.push(t);
    return out;
  };
  const label = (t: number) => (t === 0 ? "0" : length(t).replace(/\.0+ /, " ").replace(/(\.\d)0 /, "$1 "));
  return <span class="ruler" aria-hidden="true"><For each={ticks()}>{(t) => <span style={{ left: `${((t - props.from) / (props.to - props.from)) * 100}%` }}>{label(t)}</span>}</For></span>;
}
