import { createMemo, createSignal, For, onCleanup, onMount } from "solid-js";
import { resources, type Resource } from "../api";
import { setMoment, setNamespace } from "../live";
import { go, link } from "../route";
import { setTheme } from "../theme";

interface Command {
  label: string;
  hint: string;
  run: () => void;
}

const editing = (e: KeyboardEvent): boolean => {
  const t = e.composedPath()[0];
  return t instanceof HTMLElement && (t.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(t.tagName));
};

/** Palette goes anywhere by its name, and has the keys of the page. */
export function Palette() {
  let dialog!: HTMLDialogElement, keys!: HTMLDialogElement, input!: HTMLInputElement;
  const [text, setText] = createSignal("");
  const [at, setAt] = createSignal(0);
  const [all, setAll] = createSignal<Resource[]>([]);

  const commands = createMemo<Command[]>(() => {
    const words = text().trim().toLowerCase().split(/\s+/).filter(Boolean);
    const [first = "", ns = ""] = words;
    const fixed: Command[] = [
      { label: "Cluster", hint: "the live picture", run: () => go("#/") },
      { label: "Changes", hint: "between two moments", run: () => go("#/changes") },
      { label: "Server", hint: "requests, and how long they take", run: () => go("#/server") },
      { label: "Now", hint: "back from the past", run: () => setMoment("") },
      { label: "Light", hint: "colours", run: () => setTheme("light") },
      { label: "Dark", hint: "colours", run: () => setTheme("dark") },
      { label: "Colours of the system", hint: "colours", run: () => setTheme("auto") },
      { label: "All namespaces", hint: "namespace", run: () => setNamespace("") },
      { label: "Keys", hint: "what they do", run: () => keys.showModal() },
    ];
    const kinds = all().filter((r) => r.verbs.includes("list")).map((r): Command & { r: Resource } => ({
      label: r.plural, hint: (r.group || "core") + (ns && r.namespaced ? ` in ${ns}` : ""), r,
      run: () => {
        if (ns && r.namespaced) setNamespace(ns);
        go(link(["objects", r.group || "core", r.version, r.plural]));
      },
    }));
    const score = (c: Command & { r?: Resource }) => {
      const names = [c.label.toLowerCase(), ...(c.r?.short ?? []), c.r?.kind.toLowerCase() ?? ""];
      return !first ? 1 : names.includes(first) ? 4 : names.some((n) => n.startsWith(first)) ? 3 : names.some((n) => n.includes(first)) ? 2 : 0;
    };
    return [...fixed, ...kinds].map((c) => [score(c), c] as const).filter(([s]) => s > 0).sort((a, b) => b[0] - a[0]).slice(0, 12).map(([, c]) => c);
  });

  const known = () => resources().then(setAll, () => {});
  const show = () => {
    setText("");
    input.value = "";
    setAt(0);
    dialog.showModal();
    void known();
  };
  const run = (c?: Command) => {
    dialog.close();
    c?.run();
  };
  let chord = "";
  const onKey = (e: KeyboardEvent) => {
    if ((e.ctrlKey || e.metaKey) && e.key === "k") {
      e.preventDefault();
      return show();
    }
    if (e.ctrlKey || e.metaKey || e.altKey || editing(e) || document.querySelector("dialog[open]") || (e.target as HTMLElement).closest?.(".screen")) return;
    if (chord === "g") {
      const to = { c: "#/", o: "#/objects", h: "#/changes", s: "#/server" }[e.key];
      chord = "";
      if (to) {
        e.preventDefault();
        return go(to);
      }
    }
    if (e.key === "g") chord = "g";
    else if (e.key === "/") {
      const filter = document.querySelector<HTMLElement>("main:not([hidden]) input[type=search]");
      if (filter) filter.focus();
      else show();
      e.preventDefault();
    } else if (e.key === "?") keys.showModal();
    else if (e.key === "T") setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    else if (e.key === "[" || e.key === "]") {
      const s = document.querySelector<HTMLInputElement>("#moment");
      if (!s) return;
      s.value = String(+s.value + (e.key === "[" ? -20 : 20));
      s.dispatchEvent(new Event("input", { bubbles: true }));
    }
  };
  onMount(() => addEventListener("keydown", onKey));
  onCleanup(() => removeEventListener("keydown", onKey));
  return (
    <>
      <button class="plain" onClick={show}>Go to <kbd aria-hidden="true">Ctrl K</kbd></button>
      <dialog ref={dialog} class="palette" aria-label="Go to" onClick={(e) => e.target === dialog && dialog.close()}>
        <input
          ref={input}
          role="combobox"
          aria-expanded="true"
          aria-controls="commands"
          aria-activedescendant={commands().length ? `command-${at()}` : undefined}
          aria-label="Go to"
          placeholder="A resource and a namespace: po shop"
          autocomplete="off"
          spellcheck={false}
          onInput={(e) => {
            setText(e.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={(e) => {
            const by = { ArrowDown: 1, ArrowUp: -1 }[e.key];
            if (by) setAt(Math.max(0, Math.min(commands().length - 1, at() + by)));
            else if (e.key === "Enter") void known().then(() => dialog.open && run(commands()[at()])); // keys may be faster than the server
            else return;
            e.preventDefault();
          }}
        />
        <ul id="commands" role="listbox" aria-label="Places">
          <For each={commands()}>{(c, i) => <li id={`command-${i()}`} role="option" aria-selected={at() === i()} onClick={() => run(c)}>{c.label} <span>{c.hint}</span></li>}</For>
        </ul>
      </dialog>
      <dialog ref={keys} aria-labelledby="keys">
        <h2 id="keys">Keys</h2>
        <dl class="keys">
          <For each={[["Ctrl K", "go to a resource or a view"], ["/", "filter or find"], ["g c, g o, g h, g s", "cluster, objects, changes, server"], ["[ and ]", "back and forth in time"], ["T", "light or dark"], ["Arrows", "in the picture: the next node or pod; in tables: the next row"], ["Enter, Escape", "in the picture: into a node, open a pod, back"], ["+, −, 0", "in the picture: zoom, show all"], ["Shift with arrows", "move the picture"], ["Ctrl Enter", "in the editor: review"], ["Shift Tab", "out of a terminal"]]}>
            {([k, w]) => <><dt><kbd>{k}</kbd></dt><dd>{w}</dd></>}
          </For>
        </dl>
        <div class="bar"><button class="main" onClick={() => keys.close()}>Close</button></div>
      </dialog>
    </>
  );
}
