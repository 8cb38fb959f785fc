import { createResource, For, Show } from "solid-js";
import { json, said } from "../api";
import { moment } from "../live";
import { segment } from "../path";
import { ago } from "../words";

interface Event {
  type?: string;
  reason?: string;
  message?: string;
  count?: number;
  series?: { count: number; lastObservedTime: string };
  lastTimestamp?: string;
  eventTime?: string;
  metadata: { creationTimestamp: string; uid: string };
  source?: { component?: string };
  reportingComponent?: string;
}

const at = (e: Event) => Date.parse(e.series?.lastObservedTime ?? e.lastTimestamp ?? e.eventTime ?? e.metadata.creationTimestamp);

/** Events are those on an object, the newest first. */
export function Events(props: { namespace: string; name: string; uid?: string }) {
  const [list] = createResource(
    () => ({ ...props, moment: moment() }),
    async (p) => {
      const fields = [`involvedObject.name=${p.name}`, ...(p.uid && p.namespace ? [`involvedObject.uid=${p.uid}`] : [])].join(",");
      const q = new URLSearchParams({ fieldSelector: fields, limit: "500" });
      const l = await json<{ items: Event[] }>(`/api/v1/${p.namespace ? `namespaces/${segment(p.namespace)}/` : ""}events?${q}`);
      return l.items.sort((a, b) => at(b) - at(a));
    },
  );
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Events">
      <Show when={list.error}><p class="bad" role="alert">{said(list.error)}</p></Show>
      <Show when={!list.error && list()?.length === 0}><p class="empty">There are no events on it. They are kept for an hour.</p></Show>
      <Show when={!list.error && list()?.length}>
        <table class="rows wrap">
          <caption class="quiet">Events</caption>
          <thead><tr><th scope="col">When</th><th scope="col">Reason</th><th scope="col">Message</th><th scope="col">From</th></tr></thead>
          <tbody>
            <For each={list()}>
              {(e) => (
                <tr>
                  <td>{ago(at(e))}{(e.series?.count ?? e.count ?? 1) > 1 ? `, ${e.series?.count ?? e.count} times` : ""}</td>
                  <th scope="row" class={e.type === "Warning" ? "bad" : ""}>{e.reason}</th>
                  <td>{e.message}</td>
                  <td>{e.source?.component || e.reportingComponent}</td>
                </tr>
              )}
            </For>
          </tbody>
        </table>
      </Show>
    </div>
  );
}
