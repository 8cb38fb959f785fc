/** The steps of an object's trace, as /debug/keelson/trace answers, in the order in which people read them. */
export interface TraceStep {
  time: string;
  actor: string;
  verb?: string;
  resource: string;
  subresource?: string;
  namespace?: string;
  name: string;
  uid: string;
  resourceVersion?: string;
  what?: string;
  causeUID?: string;
  causeVersion?: string;
  phase?: string;
  detail?: string;
  node?: string;
  client?: string;
  ms?: number;
  wokeMs?: number;
  admissionMs?: number;
  validationMs?: number;
  storeMs?: number;
  parts?: { name: string; afterMs?: number; ms: number; detail?: string }[];
  critical?: boolean;
}

/** An answer of /debug/keelson/trace: the last thing that was asked for took totalMs since begin. */
export interface Answer {
  uid: string;
  steps: TraceStep[] | null;
  totalMs?: number;
  begin?: string;
  lost?: { what: string; ms: number; at: string }[];
  waits?: { object: string; for: string; who?: string }[];
  /** missing are times in which steps were made that are not in the record, of these objects or of others. */
  missing?: { from: string; to: string; who: string; why: string; steps: number }[];
}

export interface Bar {
  step: TraceStep;
  depth: number;
  /** first reports whether it is the first of its object here. */
  first: boolean;
  /** begin and end in ms since the first step began. */
  begin: number;
  end: number;
}

export interface Timeline {
  bars: Bar[];
  length: number;
  begin: number; // ms since 1970
  more: number;
}

/** ms is a time in ms since 1970, with its fractions: Date keeps none below a millisecond. */
export function ms(time: string): number {
  const t = Date.parse(time), part = /\.(\d+)/.exec(time)?.[1] ?? "";
  return t - (t % 1000) + Number("0." + (part || "0")) * 1000;
}

/** range returns the part of a time line that is shown at first: what was asked for last, or up to the first long pause. */
export function range(t: Timeline, a: Answer): [number, number] {
  if (a.begin && a.totalMs) {
    const from = Math.max(0, ms(a.begin) - t.begin);
    if (from < t.length) return [from, Math.min(t.length, from + a.totalMs * 1.1)];
  }
  const ends = t.bars.map((b) => b.end).sort((x, y) => x - y);
  for (let i = 1; i < ends.length; i++) if (ends[i - 1] > 5 && ends[i] > ends[i - 1] * 5 && ends[i] > 1000) return [0, ends[i - 1] * 1.1];
  return [0, t.length];
}

/** timeline orders steps as a tree: below an object what was written because of it. */
export function timeline(uid: string, steps: TraceStep[], most = 600): Timeline {
  if (!steps.length) return { bars: [], length: 0, begin: 0, more: 0 };
  const of = new Map<string, TraceStep[]>(), below = new Map<string, string[]>();
  let begin = Infinity, end = -Infinity;
  for (const s of steps) {
    const t = ms(s.time);
    begin = Math.min(begin, t - (s.ms ?? 0));
    end = Math.max(end, t);
    if (!of.has(s.uid) && s.uid !== uid && s.causeUID) below.set(s.causeUID, [...(below.get(s.causeUID) ?? []), s.uid]);
    const l = of.get(s.uid);
    if (l) l.push(s);
    else of.set(s.uid, [s]);
  }
  const bars: Bar[] = [], seen = new Set<string>();
  const object = (id: string, depth: number) => {
    if (seen.has(id)) return;
    seen.add(id);
    (of.get(id) ?? []).forEach((step, i) => {
      const t = ms(step.time) - begin;
      bars.push({ step, depth, first: i === 0, begin: t - (step.ms ?? 0), end: t });
    });
    for (const c of below.get(id) ?? []) object(c, depth + 1);
  };
  object(uid, 0);
  for (const id of of.keys()) object(id, 1); // what has no cause here, such as a webhook's writes
  return { bars: bars.slice(0, most), length: Math.max(0.001, end - begin), begin, more: Math.max(0, bars.length - most) };
}
