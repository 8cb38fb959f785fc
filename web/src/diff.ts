/** A line of a difference. */
export interface Line {
  kind: " " | "-" | "+";
  text: string;
  /** The line's numbers before and after; 0 where it is not. */
  before: number;
  after: number;
}

/** most bounds the work: texts that differ in more lines are shown as replaced. */
const most = 1000;

/** diff returns the shortest difference of two texts, by E. W. Myers' algorithm ("An O(ND) Difference Algorithm", 1986). */
export function diff(before: string, after: string): Line[] {
  const a = lines(before), b = lines(after);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const kinds = [...Array(head).fill(" "), ...middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail)), ...Array(tail).fill(" ")] as Line["kind"][];
  let i = 0, j = 0;
  return kinds.map((kind) => {
    if (kind === "-") return { kind, text: a[i], before: ++i, after: 0 };
    if (kind === "+") return { kind, text: b[j], before: 0, after: ++j };
    return { kind, text: b[j], before: ++i, after: ++j };
  });
}

const lines = (s: string): string[] => (s === "" ? [] : (s.endsWith("\n") ? s.slice(0, -1) : s).split("\n"));

function middle(a: string[], b: string[]): Line["kind"][] {
  const n = a.length, m = b.length, bound = Math.min(n + m, most), offset = bound + 1;
  let v = new Int32Array(2 * bound + 3);
  const trail: Int32Array[] = [];
  for (let d = 0; d <= bound; d++) {
    trail.push(v.slice());
    for (let k = -d; k <= d; k += 2) {
      let x = k === -d || (k !== d && v[offset + k - 1] < v[offset + k + 1]) ? v[offset + k + 1] : v[offset + k - 1] + 1;
      while (x < n && x - k < m && a[x] === b[x - k]) x++;
      v[offset + k] = x;
      if (x >= n && x - k >= m) return back(trail, n, m, offset);
    }
  }
  return [...Array(n).fill("-"), ...Array(m).fill("+")];
}

function back(trail: Int32Array[], n: number, m: number, offset: number): Line["kind"][] {
  const out: Line["kind"][] = [];
  let x = n, y = m;
  for (let d = trail.length - 1; d >= 0; d--) {
    const v = trail[d], k = x - y;
    const from = k === -d || (k !== d && v[offset + k - 1] < v[offset + k + 1]) ? k + 1 : k - 1;
    const px = d === 0 ? 0 : v[offset + from], py = d === 0 ? 0 : px - from;
    while (x > px && y > py) {
      out.push(" ");
      x--;
      y--;
    }
    if (d > 0) out.push(x === px ? "+" : "-");
    x = px;
    y = py;
  }
  return out.reverse();
}

/** around leaves out what is further than context lines from a change: null stands for the lines left out. */
export function around(all: Line[], context = 3): (Line | null)[] {
  const keep = new Uint8Array(all.length);
  all.forEach((l, i) => {
    if (l.kind !== " ") keep.fill(1, Math.max(0, i - context), Math.min(all.length, i + context + 1));
  });
  const out: (Line | null)[] = [];
  all.forEach((l, i) => {
    if (keep[i]) out.push(l);
    else if (i === 0 || keep[i - 1]) out.push(null);
  });
  return out;
}

/** merge makes in theirs the changes that mine has over base; null where both have changed the same lines. */
export function merge(base: string, mine: string, theirs: string): string | null {
  const n = lines(base).length;
  // What stands before each line of base, and whether the line stays; the end is a line of its own.
  const edits = (text: string) => {
    const before: string[][] = Array.from({ length: n + 1 }, () => []), kept = new Array<boolean>(n + 1).fill(true);
    let at = 0;
    for (const l of diff(base, text)) {
      if (l.kind === "+") before[at].push(l.text);
      else {
        if (l.kind === "-") kept[at] = false;
        at++;
      }
    }
    return { before, kept };
  };
  const a = edits(mine), b = edits(theirs), out: string[] = [], text = lines(base);
  for (let i = 0; i <= n; i++) {
    const ours = a.before[i].join("\n"), others = b.before[i].join("\n");
    const touched = (e: typeof a) => e.before[i].length > 0 || !e.kept[i] || (i > 0 && !e.kept[i - 1]);
    const same = ours === others && a.kept[i] === b.kept[i];
    if (!same && touched(a) && touched(b)) return null;
    out.push(...(ours ? a.before[i] : b.before[i]));
    if (i < n && a.kept[i] && b.kept[i]) out.push(text[i]);
  }
  return out.length ? out.join("\n") + "\n" : "";
}
