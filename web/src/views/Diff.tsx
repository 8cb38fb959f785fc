import { createMemo, For, Show } from "solid-js";
import { around, diff } from "../diff";

const most = 2000;

/** Diff shows the difference of two texts, line by line. */
export function Diff(props: { before: string; after: string }) {
  const lines = createMemo(() => around(diff(props.before, props.after)));
  return (
    <Show when={lines().some((l) => l && l.kind !== " ")} fallback={<p class="note">No difference.</p>}>
      <table class="diff">
        <caption class="quiet">What differs</caption>
        <tbody>
          <For each={lines().slice(0, most)}>
            {(l) => (
              <Show when={l} fallback={<tr class="gap"><td /><td>⋯</td></tr>}>
                {(l) => (
                  <tr class={l().kind === "+" ? "added" : l().kind === "-" ? "removed" : ""}>
                    <td>{l().kind === " " ? "" : l().kind === "+" ? <><span aria-hidden="true">+</span><span class="quiet">added</span></> : <><span aria-hidden="true">−</span><span class="quiet">removed</span></>}</td>
                    <td>{l().text}</td>
                  </tr>
                )}
              </Show>
            )}
          </For>
        </tbody>
      </table>
      <Show when={lines().length > most}><p class="note">{lines().length - most} more lines</p></Show>
    </Show>
  );
}
