import { createMemo, createSignal, For, Index, onCleanup, Show } from "solid-js";
import { json, pieces, request, said } from "../api";
import { moment, skew } from "../live";
import { type Answer, type Bar, ms, range, timeline, type TraceStep } from "../trace";
import { clock, figure } from "../words";

const length = (v: number): string => (v < 1 ? `${v.toFixed(2)} ms` : v < 1000 ? `${v.toFixed(1)} ms` : v < 120_000 ? `${(v / 1000).toFixed(2)} s` : `${(v / 60_000).toFixed(1)} min`);

const rest = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** still is how long nothing has been done when an object that waits for nothing has come to rest. */
const still = 2000;
/** pace is the shortest time between two readings while something is done. */
const pace = 500;

/** Trace is the way of an object as a tree on a time line, which grows until the object has come to rest. */
export function Trace(props: { group: string; plural: string; namespace: string; name: string }) {
  const [answer, setAnswer] = createSignal<Answer | null>(null);
  const [error, setError] = createSignal("");
  const [state, setState] = createSignal<"off" | "on" | "rest">("off");
  const [now, setNow] = createSignal(Date.now() + skew());
  const query = { group: props.group, resource: props.plural, namespace: props.namespace, name: props.name };
  const all = createMemo(() => (answer() ? timeline(answer()!.uid, answer()!.steps ?? []) : null));

  const path = (more: Record<string, string> = {}) => `/debug/keelson/trace?${new URLSearchParams({ ...query, ...more })}`;
  const read = async (signal?: AbortSignal) => setAnswer(await json<Answer>(path(), "application/json", { now: true, signal }));
  let abort = new AbortController();
  /** follow reads the trace, and again when there is more, until nothing is done and nothing waited for; after: not before something has been done. */
  async function follow(after: boolean) {
    abort.abort();
    const mine = (abort = new AbortController()), { signal } = mine;
    setError("");
    setState("on");
    const clock = setInterval(() => setNow(Date.now() + skew()), 250);
    let wake = () => {}, woken: Promise<void>;
    const sleep = () => (woken = new Promise((resolve) => (wake = resolve)));
    void sleep();
    try {
      // What the server sends while it is followed says only that there is more: how all steps belong together is in the answer.
      const stream = request(path({ watch: "true" }), { signal, now: true }).then((res) => pieces(res, () => wake())).then(() => {
        throw new Error("the server has ended the connection");
      });
      for (let known = -1; ;) {
        void sleep();
        const began = performance.now(), a = await Promise.race([read(signal), stream]), steps = a.steps ?? [], waits = !!a.waits?.length;
        after &&= known < 0 || known === steps.length;
        known = steps.length;
        const last = known ? ms(steps[known - 1].time) : 0, quiet = Date.now() + skew() - last;
        if (!after && !waits && quiet >= still) return void setState("rest");
        // An answer that takes long is asked for less often.
        await Promise.race([rest(Math.max(pace, (performance.now() - began) * 4)), stream]);
        await Promise.race([woken!, stream, rest(waits || after ? 5000 : still)]);
      }
    } catch (e) {
      if (signal.aborted) return;
      setError(said(e));
      setState("off");
    } finally {
      clearInterval(clock);
      mine.abort();
    }
  }
  onCleanup(() => abort.abort());
  if (moment()) read().catch((e) => setError(said(e)));
  else void follow(false);

  // While it grows, the line reaches to the present; not where the last step is long ago.
  const grows = () => state() === "on" && !!all() && now() - all()!.begin - all()!.length < Math.max(30_000, all()!.length);
  const end = () => (grows() ? Math.max(all()!.length, now() - all()!.begin) : all()!.length);
  // The line shows a part: what happens hours after the rest would leave that no room.
  const [whole, setWhole] = createSignal(false);
  const first = createMemo((): [number, number] => {
    if (!all()) return [0, 1];
    const [from, to] = range(all()!, answer()!);
    return grows() && to >= all()!.length * 0.9 ? [from, end()] : [from, to];
  });
  const shown = (): [number, number] => (whole() ? [0, end()] : first());
  const part = () => first()[0] > 0 || first()[1] < all()!.length;
  const at = (v: number) => ((Math.min(v, shown()[1]) - shown()[0]) / (shown()[1] - shown()[0])) * 100;
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Trace">
      <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
      <Show when={all()}>
        {(t) => (
          <Show when={t().bars.length} fallback={<p class="empty">Nothing is recorded of it. The record begins when the server starts.</p>}>
            <div class="bar">
              <span>{t().bars.length} steps in {length(t().length)}, from {clock(t().begin)}</span>
              <Show when={part()}><button aria-pressed={!whole()} onClick={() => setWhole(!whole())}>{answer()!.totalMs ? "Only what was asked for last" : `Only the first ${length(first()[1])}`}</button></Show>
              <Show when={!moment()} fallback={<button onClick={() => read()}>Read again</button>}>
                <Show when={state() === "on"} fallback={<button onClick={() => follow(true)}>Follow</button>}><button onClick={() => { abort.abort(); setState("off"); }}>Stop</button></Show>
              </Show>
              <span class="note" role="status">{state() === "on" ? (answer()!.waits?.length ? "Followed until it waits for nothing" : "Followed") : state() === "rest" ? "It has come to rest." : ""}</span>
              <Show when={moment()}><span class="note">The trace is of the present.</span></Show>
            </div>
            <Show when={answer()!.totalMs || answer()!.waits?.length || answer()!.missing?.length}>
              <ul class="findings">
                <Show when={answer()!.totalMs}><li>What was asked for last took <b>{length(answer()!.totalMs!)}</b>; the critical path is marked.</li></Show>
                <For each={answer()!.lost}>{(l) => <li><b>{length(l.ms)}</b> lost: {l.what}</li>}</For>
                <For each={answer()!.missing}>{(m) => <li><b>{figure(m.steps)} {m.steps === 1 ? "step" : "steps"} missing</b> of {m.who}, of these objects or of others, from {clock(ms(m.from))} to {clock(ms(m.to))}: {m.why}</li>}</For>
                <For each={answer()!.waits}>{(w) => <li><b class="bad">{w.object}</b> waits for {w.for.replace(/\.$/, "")}{w.who ? `. Who could change it: ${w.who}` : ""}</li>}</For>
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
                <Index each={t().bars}>
                  {(bar) => <Row bar={bar()} at={at} shown={shown()} />}
                </Index>
                <Show when={state() === "on"}>
                  <For each={answer()!.waits}>
                    {(w) => (
                      <tr class="head waits">
                        <th scope="row"><span class="object">{w.object}</span><span class="step">waits for {w.for}</span></th>
                        <td>{w.who}</td>
                        <td class="number">{length(t().length)}</td>
                        <td class="number">{length(Math.max(0, now() - t().begin - t().length))}</td>
                        <td class="line"><Show when={grows()}><i style={{ left: `${Math.max(0, at(t().length))}%`, width: `max(3px, ${at(end()) - Math.max(0, at(t().length))}%)` }} /></Show></td>
                      </tr>
                    )}
                  </For>
                </Show>
              </tbody>
            </table>
            <Show when={t().more}><p class="note">{t().more} more steps: see keelson trace.</p></Show>
          </Show>
        )}
      </Show>
    </div>
  );
}

/** Row is a step. */
function Row(props: { bar: Bar; at: (v: number) => number; shown: [number, number] }) {
  const step = () => props.bar.step, from = (v: number) => Math.max(0, props.at(v));
  return (
    <tr classList={{ critical: step().critical, head: props.bar.first }}>
      <th scope="row">
        <Show when={props.bar.first}><span class="object" style={{ "padding-left": `${props.bar.depth * 14}px` }}>{step().resource.split(".")[0]} <b>{step().name}</b></span></Show>
        <span class="step" style={{ "padding-left": `${props.bar.depth * 14 + 14}px` }}>
          {step().phase ?? step().verb}{step().subresource ? " " + step().subresource : ""} <span class="note">{[step().what, step().detail].filter(Boolean).join(", ")}</span>
          <Show when={step().critical}><span class="quiet">, on the critical path</span></Show>
        </span>
      </th>
      <td>{step().actor}{step().node && !step().actor.includes(step().node!) ? " on " + step().node : ""}</td>
      <td class="number">{length(Math.max(0, props.bar.begin))}</td>
      <td class="number">{step().ms ? length(step().ms!) : ""}</td>
      <td class="line" title={parts(step())}>
        <Show when={props.bar.begin <= props.shown[1] && props.bar.end >= props.shown[0]}>
          <i style={{ left: `${from(props.bar.begin)}%`, width: `max(3px, ${props.at(props.bar.end) - from(props.bar.begin)}%)` }} />
          <Show when={(step().wokeMs ?? 0) > (step().ms ?? 0)}><em style={{ left: `${from(props.bar.end - step().wokeMs!)}%`, width: `${Math.max(0, props.at(props.bar.begin) - from(props.bar.end - step().wokeMs!))}%` }} /></Show>
        </Show>
      </td>
    </tr>
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
