import { createSignal } from "solid-js";
import type { Palette } from "./picture/protocol";

export type Theme = "auto" | "light" | "dark";

const key = "keelson-dash-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = (): Theme => {
  try {
    const t = localStorage.getItem(key);
    return t === "light" || t === "dark" ? t : "auto";
  } catch {
    return "auto";
  }
};

const [theme, setSignal] = createSignal<Theme>("auto");
export { theme };

/** painted changes with whatever changes the colours. */
export const [painted, setPainted] = createSignal(0);

function paint() {
  const t = theme();
  document.documentElement.dataset.theme = t === "auto" ? (dark.matches ? "dark" : "light") : t;
  setPainted(painted() + 1);
}

/** begin shows the theme that was chosen. The browser's store is in another process, which is waited for. */
export function begin() {
  setSignal(stored());
  dark.addEventListener("change", paint);
  paint();
}

/** setTheme changes the theme; it is the only thing that the page remembers. */
export function setTheme(t: Theme) {
  setSignal(t);
  try {
    if (t === "auto") localStorage.removeItem(key);
    else localStorage.setItem(key, t);
  } catch {
    // A browser that stores nothing forgets it.
  }
  paint();
}

/** palette reads the colours of the picture from the style sheet. */
export function palette(): Palette {
  const s = getComputedStyle(document.documentElement);
  const v = (n: string) => s.getPropertyValue(n).trim();
  return {
    states: ["ready", "starting", "pending", "unschedulable", "failing", "ending", "done", "unknown"].map((n) => v("--" + n)),
    paper: v("--paper"), cell: v("--cell"), line: v("--line"), ink: v("--ink"), faint: v("--faint"), accent: v("--accent"), alarm: v("--alarm"),
  };
}
