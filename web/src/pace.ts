import { createSignal } from "solid-js";

/** pause ends a task of the page's thread, so that input and drawing have their turn; what follows it is in another. */
export function pause(): Promise<void> {
  const s = (globalThis as { scheduler?: { yield?: () => Promise<void> } }).scheduler;
  if (s?.yield) return s.yield();
  return new Promise((resolve) => {
    const c = new MessageChannel();
    c.port1.onmessage = () => {
      c.port1.close();
      resolve();
    };
    c.port2.postMessage(0);
  });
}

/** stages counts from 0 to a number, each in a task of its own: what a view makes at the beginning is made in parts. */
export function stages(most: number): () => number {
  const [stage, set] = createSignal(0);
  void (async () => {
    for (let i = 1; i <= most; i++) {
      await pause();
      set(i);
    }
  })();
  return stage;
}
