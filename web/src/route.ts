import { createSignal } from "solid-js";

/** A route is the part of the address after #: a path, and what it asks for. */
export interface Route {
  path: string[];
  query: URLSearchParams;
}

export function parse(hash: string): Route {
  const text = hash.replace(/^#\/?/, ""), q = text.indexOf("?");
  const path = (q < 0 ? text : text.slice(0, q)).split("/").filter(Boolean).map((s) => {
    try {
      return decodeURIComponent(s);
    } catch {
      return s;
    }
  });
  return { path, query: new URLSearchParams(q < 0 ? "" : text.slice(q + 1)) };
}

export function link(path: string[], query: Record<string, string> = {}): string {
  const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== ""));
  return "#/" + path.map(encodeURIComponent).join("/") + (q.size ? "?" + q : "");
}

const [route, setRoute] = createSignal(parse(location.hash));
export { route };
addEventListener("hashchange", () => setRoute(parse(location.hash)));

export function go(to: string) {
  location.hash = to;
}
