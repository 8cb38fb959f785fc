import { createMemo, createResource, createSignal, For, Show } from "solid-js";
import { json, said } from "../api";
import { moment } from "../live";
import { timeline, type TraceStep } from "../trace";
import { clock } from "../words";

const length = (v: number): string => (v < 1 ? `${v.toFixed(2)} ms` : v < 1000 ? `${v.toFixed(1)} ms` : v < 120_000 ? `${(v / 1000).toFixed(2)} s` : `${(v / 60_000).toFixed(1)} min`);

/** Trace is the way of an object as a tree on a time line. */
export function Trace(props: { group: string; plural: string; namespace: string; name: string }) {
  const [answer, { refetch }] = createResource(() => json<{ uid: string; steps: TraceStep[] }>(`/debug/keelson/trace?${new URLSearchParams({ group: props.group, resource: props.plural, namespace: props.namespace, name: props.name })}`, "application/json", { now: true }));
  const all = createMemo(() => (answer.error || !answer() ? null : timeline(answer()!.uid, answer()!.steps ?? [])));
  // The line can show a part: what happens years after the rest would leave it no room.
  const [until, setUntil] = createSignal(0);
  const shown = () => (until() ? Math.min(until(), all()!.length) : first());
  // At first, the part in which most happens: up to the first pause that is longer than four times what was before it.
  const first = createMemo(() => {
    const t = all();
    if (!t) return 1;
    const ends = t.bars.map((b) => b.end).sort((a, b) => a - b);
    for (let i = 1; i < ends.length; i++) if (ends[i - 1] > 5 && ends[i] > ends[i - 1] * 5 && ends[i] > 1000) return ends[i - 1] * 1.1;
    return t.length;
  });
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Trace">
      <Show when={answer.error}><p class="bad" role="alert">{said(answer.error)}</p></Show>
      <Show when={all()}>
        {(t) => (
          <Show when={t().bars.length} fallback={<p class="empty">Nothing is recorded of it. The record begins when the server starts.</p>}>
            <div class="bar">
              <span>{t().bars.length} steps in {length(t().length)}, from {clock(t().begin)}</span>
              <Show when={first() < t().length}>
                <button aria-pressed={shown() < t().length} onClick={() => setUntil(shown() < t().length ? t().length : 0)}>Only the first {length(first())}</button>
              </Show>
              <button onClick={refetch}>Read again</button>
              <Show when={moment()}><span class="note">The trace is of the present.</span></Show>
            </div>
            <table class="timeline">
              <caption class="quiet">Steps with their beginning and length</caption>
              <thead>
                <tr>
                  <th scope="col">Step</th>
                  <th scope="col">By</th>
                  <th scope="col" class="number">At</th>
                  <th scope="col" class="number">Took</th>
                  <th scope="col" class="line"><span class="quiet">On the time line</span><Ruler length={shown()} /></th>
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
                      <td class="number">{length(b.begin)}</td>
                      <td class="number">{b.step.ms ? length(b.step.ms) : ""}</td>
                      <td class="line" title={parts(b.step)}>
                        <Show when={b.begin <= shown()}>
                          <i style={{ left: `${(Math.max(0, b.begin) / shown()) * 100}%`, width: `max(3px, ${(Math.min(b.end, shown()) - b.begin) / shown() * 100}%)` }} />
                          <Show when={b.step.wokeMs && b.step.wokeMs > (b.step.ms ?? 0)}><em style={{ left: `${Math.max(0, (b.end - b.step.wokeMs!) / shown()) * 100}%`, width: `${(Math.max(0, b.step.wokeMs! - (b.step.ms ?? 0)) / shown()) * 100}%` }} /></Show>
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

function Ruler(props: { length: number }) {
  const ticks = () => {
    const unit = 10 ** Math.floor(Math.log10(props.length / 4)), step = [1, 2, 5, 10].map((m) => m * unit).find((s) => props.length / s <= 5) ?? props.length;
    const out: number[] = [];
    for (let t = 0; t <= props.length * 0.96 && out.length < 12; t += step) out.push(t);
    return out;
  };
  return <span class="ruler" aria-hidden="true"><For each={ticks()}>{(t) => <span style={{ left: `${(t / props.length) * 100}%` }}>{t === 0 ? "0" : length(t).replace(/\.0+ /, " ").replace(/0 s$/, " s").replace(/(\.\d)0 /, "$1 ")}</span>}</For></span>;
}
