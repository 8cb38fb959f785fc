import { createSignal, For, onCleanup, Show } from "solid-js";
import { said } from "../api";

/** Terminal runs a command in a container, with a terminal that is loaded with the first. */
export function Terminal(props: { namespace: string; name: string; containers: string[] }) {
  const [container, setContainer] = createSignal(props.containers[0] ?? "");
  const [command, setCommand] = createSignal("sh");
  const [state, setState] = createSignal<"off" | "on">("off");
  const [message, setMessage] = createSignal("");
  let host!: HTMLDivElement, bar!: HTMLFormElement, close = () => {}, gone = false;

  async function start(e: Event) {
    e.preventDefault();
    setMessage("");
    try {
      const m = await import("../terminal");
      await m.measurable();
      if (gone) return;
      close();
      setState("on");
      close = m.open(host, { namespace: props.namespace, pod: props.name, container: container(), command: command().split(/\s+/).filter(Boolean) }, (end) => {
        setState("off");
        setMessage(end);
      }, () => bar.querySelector("button")!.focus());
    } catch (err) {
      setState("off");
      setMessage(said(err));
    }
  }
  onCleanup(() => {
    gone = true;
    close();
  });
  return (
    <div class="terminal">
      <form class="bar" ref={bar} onSubmit={start}>
        <label>Container <select onChange={(e) => setContainer(e.currentTarget.value)}><For each={props.containers}>{(c) => <option>{c}</option>}</For></select></label>
        <label class="grow">Command <input value={command()} onInput={(e) => setCommand(e.currentTarget.value)} spellcheck={false} /></label>
        <Show when={state() === "off"} fallback={<button type="button" onClick={() => close()}>End</button>}><button class="main">Run</button></Show>
        <Show when={state() === "on"}><span class="note" id="leave">Shift Tab leaves the terminal</span></Show>
      </form>
      <Show when={message()}><p class="bar" role="status">{message()}</p></Show>
      <div class="screen" ref={host} />
    </div>
  );
}
