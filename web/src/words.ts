/** figure writes a number as people read it. */
export const figure = (n: number): string => n.toLocaleString("en");

const two = (n: number) => String(n).padStart(2, "0");

/** clock is the time of day of ms since 1970, to the millisecond. */
export function clock(ms: number): string {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

/** time is the time of day, to the second. */
export const time = (ms: number): string => clock(ms).slice(0, 8);

/** span is a length of time, as kubectl writes ages. */
export function span(ms: number): string {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

/** ago is how long ago a time was. */
export const ago = (ms: number): string => span(Date.now() - ms) + " ago";

/** cores is an amount of CPU. */
export const cores = (n: number): string => (n === 0 ? "0" : n < 1 ? `${+(n * 1000).toPrecision(3)} m` : `${+n.toFixed(2)} ${n === 1 ? "core" : "cores"}`);

/** bytes is an amount of memory. */
export function bytes(n: number): string {
  for (const [unit, size] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const) if (n >= size) return `${+(n / size).toPrecision(3)} ${unit}`;
  return `${n} B`;
}
