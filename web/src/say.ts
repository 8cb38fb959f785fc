import { createSignal } from "solid-js";

/** spoken is what a screen reader is told, of actions and their outcome only. */
export const [spoken, say] = createSignal("");
