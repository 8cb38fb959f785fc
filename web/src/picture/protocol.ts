/** The messages between the page and the worker that has the stream and draws. */
import type { Grouping } from "./cells";
import type { Hello, Stats, Step } from "./model";

export interface Rect {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** The stations that a change passes on its way. */
export type Station = "clients" | "api" | "store" | "controllers" | "scheduler" | "nodes";
export const stations: Station[] = ["clients", "api", "store", "controllers", "scheduler", "nodes"];

/** Colours as #rrggbb. */
export interface Palette {
  states: string[];
  paper: string;
  cell: string;
  line: string;
  ink: string;
  faint: string;
  accent: string;
  alarm: string;
}

export interface Item {
  /** A group is one of pods. */
  kind: "node" | "pod" | "group";
  namespace: string;
  name: string;
  /** node of a pod; zone of a node. */
  where: string;
  state: string;
  details: string[];
  owner?: { kind: string; namespace: string; name: string };
  x: number;
  y: number;
}

/** A Row is a node, or a group of pods. */
export interface Row {
  name: string;
  group: string;
  flags: number;
  counts: number[];
}

export interface Tree {
  kind: string;
  namespace: string;
  name: string;
  state: string;
  node?: string;
  children: Tree[];
  more: number;
}

export interface Summary {
  nodes: number;
  nodesNotReady: number;
  pods: number;
  counts: number[];
  stats: Stats;
  /** rates are writes a second by the station that they come from. */
  rates: Record<Station, number>;
  /** actors are the controllers that wrote most in the last seconds. */
  actors: [string, number][];
  steps: Step[];
  dropped: number;
  /** lag is ms from a write to its drawing, of the slowest of the last ones; drawn is how many there have been. */
  lag: number;
  drawn: number;
  zoom: number;
}

export type ToWorker =
  | { type: "init"; base: OffscreenCanvas; over: OffscreenCanvas; url: string }
  | { type: "size"; width: number; height: number; top: number; ratio: number; stations: Record<Station, Rect> }
  | { type: "colors"; palette: Palette; still: boolean }
  | { type: "open"; at: string; namespace: string }
  | { type: "group"; by: Grouping }
  | { type: "show"; shown: boolean }
  | { type: "away"; away: boolean }
  | { type: "pan"; x: number; y: number }
  | { type: "zoom"; by: number; x: number; y: number }
  | { type: "fit" }
  | { type: "hover"; x: number; y: number }
  | { type: "leave" }
  | { type: "pick"; x: number; y: number }
  | { type: "move"; x: number; y: number }
  | { type: "into" }
  | { type: "out" }
  | { type: "find"; text: string }
  | { type: "select"; kind: "node" | "pod"; namespace: string; name: string }
  | { type: "ask"; id: number; what: "cells"; filter: string; from: number; count: number }
  | { type: "ask"; id: number; what: "pods"; node: string }
  | { type: "ask"; id: number; what: "requests" }
  | { type: "ask"; id: number; what: "tree"; kind: string; namespace: string; name: string };

export type FromWorker =
  | { type: "hello"; hello: Hello }
  | { type: "status"; state: "connecting" | "loading" | "live" | "past" | "failed"; message: string }
  | { type: "first"; ms: number; pods: number; nodes: number }
  | { type: "summary"; summary: Summary }
  | { type: "hover"; item: Item | null }
  | { type: "picked"; item: Item | null; found?: number }
  | { type: "opened"; kind: Item["kind"]; namespace: string; name: string; state: string }
  | { type: "found"; count: number }
  | { type: "answer"; id: number; value: unknown };
