/** api talks to the API server: errors are what the server says, word for word. */
import { base, moment } from "./live";
import { stringOf } from "./yaml";

/** Failure is an answer that is an error: the server's message, and its code. */
export class Failure extends Error {
  constructor(message: string, readonly code: number, readonly reason = "") {
    super(message);
  }
}

export interface Resource {
  group: string; // "" is core
  version: string;
  plural: string;
  kind: string;
  namespaced: boolean;
  verbs: string[];
  short: string[];
  subresources: string[];
}

interface Options extends RequestInit {
  /** now reads the present, whatever moment the page shows. */
  now?: boolean;
}

/** request returns an answer that is no error. */
export async function request(path: string, o: Options = {}): Promise<Response> {
  const { now, ...init } = o;
  const past = moment() && !now ? "/at/" + encodeURIComponent(moment()) : "";
  const headers = new Headers(init.headers);
  if (init.method && init.method !== "GET") headers.set("X-Keelson-Dash", "1");
  const res = await fetch(base + past + path, { credentials: "same-origin", redirect: "error", cache: "no-store", ...init, headers });
  if (res.ok) return res;
  const text = await res.text();
  try {
    const s = JSON.parse(text);
    if (typeof s.message === "string" && s.message) throw new Failure(s.message, res.status, s.reason);
  } catch (e) {
    if (e instanceof Failure) throw e;
  }
  throw new Failure((stringOf(text, "message") ?? text.trim()) || `${res.status} ${res.statusText}`, res.status, stringOf(text, "reason")); // a Status as YAML

}

export async function json<T>(path: string, accept = "application/json", o: Options = {}): Promise<T> {
  return (await request(path, { ...o, headers: { Accept: accept } })).json();
}

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

interface Discovery {
  items: {
    metadata?: { name?: string };
    versions?: { version: string; resources?: { resource: string; responseKind: { kind: string }; scope: string; verbs: string[]; shortNames?: string[]; subresources?: { subresource: string }[] }[] }[];
  }[];
}

let discovered: Promise<Resource[]> | null = null;

/** resources returns what the server has, each in its group's preferred version; they are asked for once a minute at most. */
export function resources(): Promise<Resource[]> {
  return (discovered ??= (async () => {
    try {
      const lists = await Promise.all(["/api", "/apis"].map((p) => json<Discovery>(p, aggregated, { now: true })));
      const out: Resource[] = [];
      for (const g of lists.flatMap((l) => l.items ?? [])) {
        const seen = new Set<string>();
        for (const v of g.versions ?? []) {
          for (const r of v.resources ?? []) {
            if (seen.has(r.resource)) continue;
            seen.add(r.resource);
            out.push({
              group: g.metadata?.name ?? "", version: v.version, plural: r.resource, kind: r.responseKind.kind, namespaced: r.scope === "Namespaced", verbs: r.verbs, short: r.shortNames ?? [],
              subresources: (r.subresources ?? []).map((s) => s.subresource),
            });
          }
        }
      }
      setTimeout(() => (discovered = null), 60_000);
      return out;
    } catch (e) {
      discovered = null;
      throw e;
    }
  })());
}

export interface Table {
  metadata: { resourceVersion: string; continue?: string; remainingItemCount?: number };
  columnDefinitions: { name: string; type: string; priority: number; description?: string }[] | null;
  rows: TableRow[] | null;
}

export interface TableRow {
  cells: unknown[];
  object: { metadata: { name: string; namespace?: string; uid?: string; resourceVersion?: string } };
}

export const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/** pieces calls take with each piece of an answer's text. */
export async function pieces(res: Response, take: (text: string) => void): Promise<void> {
  const reader = res.body!.getReader(), d = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    take(d.decode(value, { stream: true }));
  }
}

/** watch calls take with events until the signal ends it, or the server does. */
export async function watch(path: string, accept: string, signal: AbortSignal, take: (events: { type: string; object: unknown }[]) => void): Promise<void> {
  let rest = "";
  const res = await request(path, { signal, headers: { Accept: accept } });
  await pieces(res, (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    const events = lines.filter(Boolean).map((l) => JSON.parse(l));
    if (events.length) take(events);
  });
}

export const said = (e: unknown): string => (e instanceof Error ? e.message : String(e));
