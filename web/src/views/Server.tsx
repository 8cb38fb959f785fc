import { createSignal, Show } from "solid-js";
import type { Line } from "../chart";
import { ask, moment } from "../live";
import { between, History, type Requests } from "../series";
import { Chart, every } from "./Chart";

/** How often the API server is asked; an hour is kept. */
const period = 5000, most = 720;
const rates: Line[] = [{ label: "Reads", color: "--accent" }, { label: "Writes", color: "--pending", dash: [6, 3] }];
const times: Line[] = [{ label: "Mean", color: "--accent" }, { label: "99 %", color: "--pending", dash: [6, 3] }];
const perSecond = (v: number) => (v < 10 ? +v.toFixed(1) : Math.round(v).toLocaleString("en")) + "/s";
const took = (s: number) => (s < 0.01 ? `${+(s * 1000).toFixed(1)} ms` : s < 1 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(2)} s`);

/** Server shows how many requests the API server answers, and how long they take, as long as it is open. */
export function Server() {
  const rate = new History(most), time = new History(most);
  const [version, setVersion] = createSignal(0);
  const [error, setError] = createSignal("");
  let last: { at: number; requests: Requests } | null = null;
  every(period, async (signal) => {
    const a = await ask<{ at: number; requests: Requests } | { error: string }>({ what: "requests" });
    if (signal.aborted) return;
    if ("error" in a) return void setError(a.error);
    setError("");
    const d = last && between(last.requests, a.requests, (a.at - last.at) / 1000);
    last = a;
    if (!d) return;
    rate.push(a.at / 1000, [d.reads, d.writes]);
    time.push(a.at / 1000, [d.mean, d.slow]);
    setVersion(version() + 1);
  });
  return (
    <main id="main" class="changed">
      <h2 class="title">API server</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="API server">
        <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
        <Show when={!error() || version()}>
          <Chart title="Requests" lines={rates} history={rate} version={version()} unit={perSecond} />
          <Chart title="Time to answer" of="without watches, and what lasts as they do" lines={times} history={time} version={version()} unit={took} />
          <p class="note">All requests that this API server has answered, every five seconds, from when this was opened{moment() ? ": of the present, not of the moment that is shown elsewhere" : ""}.</p>
        </Show>
      </div>
    </main>
  );
}
