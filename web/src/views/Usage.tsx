import { createMemo, createSignal, Show } from "solid-js";
import { json, said } from "../api";
import type { Line } from "../chart";
import { path } from "../path";
import { History, quantity } from "../series";
import { bytes, cores } from "../words";
import { Chart, every } from "./Chart";

interface Used {
  timestamp: string;
  usage?: { cpu: string; memory: string };
  containers?: { name: string; usage: { cpu: string; memory: string } }[];
}

interface Resources {
  requests?: Record<string, string>;
  limits?: Record<string, string>;
}
export interface Sized {
  spec?: { containers?: { name: string; resources?: Resources }[] };
  status?: { allocatable?: Record<string, string> };
}

/** The server measures every 15 seconds; half of that misses none. An hour is kept. */
const period = 7500, most = 240;
const colors = ["--accent", "--pending", "--ready", "--unknown", "--failing"];

/** Usage shows what a node or pod uses of CPU and memory, as long as it is open. */
export function Usage(props: { plural: "nodes" | "pods"; namespace: string; name: string; object: Sized }) {
  const cpu = new History(most), memory = new History(most);
  const [version, setVersion] = createSignal(0);
  const [error, setError] = createSignal("");
  // A pod's containers have lines of their own, if there are not too many to tell apart.
  const [names, setNames] = createSignal<string[]>([], { equals: (a, b) => a.join() === b.join() });
  const lines = createMemo((): Line[] => {
    const apart = names().length > 1 && names().length < colors.length ? names() : [];
    return ["Total", ...apart].map((label, i) => ({ label: apart.length ? label : "Used", color: colors[i], ...(i && { dash: [3 + 3 * i, 3] }) }));
  });
  every(period, async (signal) => {
    try {
      const u = await json<Used>(path({ group: "metrics.k8s.io", version: "v1beta1", plural: props.plural }, props.namespace, props.name), "application/json", { now: true, signal });
      const parts = u.containers ?? [], each = (r: "cpu" | "memory") => (u.usage ? [quantity(u.usage[r])] : parts.map((c) => quantity(c.usage[r])));
      setNames([...new Set([...names(), ...parts.map((c) => c.name)])]);
      for (const [h, r] of [[cpu, "cpu"], [memory, "memory"]] as const) {
        const total = each(r).reduce((a, b) => a + b, 0);
        h.push(Date.parse(u.timestamp) / 1000, [total, ...names().map((n) => { const c = parts.find((c) => c.name === n); return c ? quantity(c.usage[r]) : null; })]);
      }
      setError("");
      setVersion(version() + 1);
    } catch (e) {
      if (!signal.aborted) setError(said(e));
    }
  });
  const of = (r: "cpu" | "memory", unit: (v: number) => string): string => {
    if (props.plural === "nodes") return props.object.status?.allocatable?.[r] ? `of ${unit(quantity(props.object.status.allocatable[r]))} for pods` : "";
    const sum = (what: keyof Resources, all: boolean) => {
      const q = (props.object.spec?.containers ?? []).map((c) => c.resources?.[what]?.[r]);
      return q.some(Boolean) && (!all || q.every(Boolean)) ? unit(q.reduce((a, t) => a + (t ? quantity(t) : 0), 0)) : "";
    };
    const requested = sum("requests", false), limit = sum("limits", true);
    return [requested && `${requested} requested`, limit && `at most ${limit}`].filter(Boolean).join(", ");
  };
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Usage">
      <Show when={error()}><p class="bad" role="alert">{error()}</p></Show>
      <Show when={!error() || version()}>
        <Chart title="CPU" of={of("cpu", cores)} lines={lines()} history={cpu} version={version()} unit={cores} />
        <Chart title="Memory" of={of("memory", bytes)} lines={lines()} history={memory} version={version()} unit={bytes} />
        <p class="note">Measured every 15 seconds, from when this was opened.</p>
      </Show>
    </div>
  );
}
