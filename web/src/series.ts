/** Figures over time: a bounded history, and what they are read from. */

/** History has the samples of some lines, of which the oldest go. Times are in seconds since 1970. */
export class History {
  times: number[] = [];
  lines: (number | null)[][] = [];

  constructor(private most = 720) {}

  /** push takes a sample, unless there is one of that time or later. A line that is new had no values before. */
  push(time: number, values: (number | null)[]): boolean {
    if (this.times.length && time <= this.times[this.times.length - 1]) return false;
    while (this.lines.length < values.length) this.lines.push(this.times.map(() => null));
    this.times.push(time);
    this.lines.forEach((l, i) => l.push(values[i] ?? null));
    if (this.times.length > this.most) for (const l of [this.times, ...this.lines]) l.shift();
    return true;
  }
}

const suffixes: Record<string, number> = { n: 1e-9, u: 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 };

/** quantity reads a quantity of Kubernetes; NaN if it is none. */
export function quantity(text: string): number {
  const m = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([a-zA-Z]*)$/.exec(text);
  return m ? Number(m[1]) * (suffixes[m[2]] ?? NaN) : NaN;
}

/** Requests are the API server's since its start, without those that last (watches, terminals). */
export interface Requests {
  reads: number;
  writes: number;
  /** seconds is how long they took together. */
  seconds: number;
  /** buckets are how many took at most so many seconds, in their order. */
  buckets: [number, number][];
}

const lasting = new Set(["WATCH", "WATCHLIST", "CONNECT", "PROXY"]), reading = new Set(["GET", "LIST", "HEAD"]);
const duration = "apiserver_request_duration_seconds";

/** requests reads them from the text of /metrics. */
export function requests(text: string): Requests {
  const out: Requests = { reads: 0, writes: 0, seconds: 0, buckets: [] }, buckets = new Map<number, number>();
  // Most lines are of other metrics: only these are looked at more closely.
  for (let from = text.indexOf(duration); from >= 0; from = text.indexOf(duration, from)) {
    let end = text.indexOf("\n", from);
    if (end < 0) end = text.length;
    const line = text.slice(from, end), start = from === 0 || text[from - 1] === "\n";
    from = end;
    const m = start && /^_(bucket|sum|count)\{(.*)\} (\S+)/.exec(line.slice(duration.length));
    if (!m) continue;
    const label = (name: string) => new RegExp(`(?:^|,)${name}="([^"]*)"`).exec(m[2])?.[1] ?? "";
    const verb = label("verb"), value = Number(m[3]);
    if (lasting.has(verb) || !Number.isFinite(value)) continue;
    if (m[1] === "sum") out.seconds += value;
    else if (m[1] === "count") out[reading.has(verb) ? "reads" : "writes"] += value;
    else {
      const le = label("le") === "+Inf" ? Infinity : Number(label("le"));
      buckets.set(le, (buckets.get(le) ?? 0) + value);
    }
  }
  out.buckets = [...buckets].sort(([a], [b]) => a - b);
  return out;
}

/** between is what happened from one state to a later one: per second, and in seconds; null where nothing did. */
export function between(a: Requests, b: Requests, seconds: number): { reads: number; writes: number; mean: number | null; slow: number | null } | null {
  const reads = b.reads - a.reads, writes = b.writes - a.writes, n = reads + writes;
  if (reads < 0 || writes < 0 || seconds <= 0) return null; // the server was started again
  const before = new Map(a.buckets);
  return {
    reads: reads / seconds, writes: writes / seconds, mean: n ? (b.seconds - a.seconds) / n : null,
    slow: part(b.buckets.map(([le, c]) => [le, c - (before.get(le) ?? 0)]), 0.99),
  };
}

/** part is the time within which a part of requests ended, as Prometheus' histogram_quantile has it. */
function part(buckets: [number, number][], q: number): number | null {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let low = 0, below = 0;
  for (const [le, count] of buckets) {
    if (count >= all * q) return le === Infinity ? low : low + ((le - low) * (all * q - below)) / Math.max(1, count - below);
    low = le;
    below = count;
  }
  return low;
}
