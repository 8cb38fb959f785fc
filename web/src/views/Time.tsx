import { createEffect, createSignal, onCleanup, Show } from "solid-js";
import { hello, moment, setMoment, status, summary } from "../live";
import { link } from "../route";
import { figure, span, time } from "../words";

/** Time is the slider that goes back in time. */
export function Time() {
  const [now, setNow] = createSignal(Date.now());
  const timer = setInterval(() => setNow(Date.now()), 1000);
  onCleanup(() => clearInterval(timer));
  const [oldest, setOldest] = createSignal(0);
  createEffect(() => {
    // The past that the stream of a past moment knows ends there: what the present said counts.
    const h = hello();
    if (h && !moment()) setOldest(h.history || 0);
    else if (h && !oldest()) setOldest(h.history || 0);
  });
  const [drag, setDrag] = createSignal<number | null>(null);
  const [chosen, setChosen] = createSignal(0);
  const steps = 1000;
  const begin = () => oldest();
  const value = () => {
    const at = drag() ?? (moment() ? chosen() : now());
    return Math.round(((at - begin()) / Math.max(1, now() - begin())) * steps);
  };
  const at = (v: number) => begin() + (v / steps) * (now() - begin());
  let slider!: HTMLInputElement;
  const commit = (v: number) => {
    setDrag(null);
    if (v >= steps) return setMoment("");
    setChosen(at(v));
    setMoment(new Date(at(v)).toISOString());
  };
  const label = () => {
    const d = drag();
    if (d !== null) return `${time(d)}, ${span(now() - d)} ago`;
    if (!moment()) return "Now";
    return /^\d+$/.test(moment()) ? `Revision ${moment()}` : `${time(Date.parse(moment()))}, ${span(now() - Date.parse(moment()))} ago`;
  };
  // With keys, the moment is read when none has been pressed for a while.
  let later = 0;
  return (
    <footer class="time" aria-label="Time">
      <Show when={oldest() > 0} fallback={<span class="note">The server keeps no history</span>}>
        <label for="moment" class="quiet">Moment</label>
        <span class="note edge">{span(now() - begin())} ago</span>
        <input
          id="moment"
          ref={slider}
          type="range"
          min="0"
          max={steps}
          value={value()}
          aria-valuetext={label()}
          onInput={(e) => {
            const v = +e.currentTarget.value;
            setDrag(v >= steps ? now() : at(v));
            clearTimeout(later);
            later = window.setTimeout(() => commit(v), 350);
          }}
        />
        <b class="label">{label()}</b>
        <Show when={moment()}>
          <a href={link(["changes"], { from: moment() })}>What changed since</a>
          <button class="main" onClick={() => setMoment("")}>Back to now</button>
        </Show>
      </Show>
      <span class="rest" />
      <Show when={status().state === "failed"}><span class="bad">{status().message}</span></Show>
      <Show when={summary()?.stats.revision && !moment()}><span class="note rev">revision {summary()!.stats.revision}</span></Show>
      <Show when={summary()?.stats.watches && !moment()}><span class="note rev">{figure(summary()!.stats.watches!)} {summary()!.stats.watches === 1 ? "watch" : "watches"}</span></Show>
    </footer>
  );
}
