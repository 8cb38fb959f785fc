import { createEffect, Show } from "solid-js";
import { hello, moment } from "./live";
import { Picture } from "./views/Picture";
import { route } from "./route";
import { setTheme, theme } from "./theme";

export function App() {
  const view = () => route().path[0] ?? "";
  createEffect(() => {
    document.documentElement.classList.toggle("past", moment() !== "");
  });
  return (
    <>
      <a class="skip" href="#main">To the content</a>
      <header>
        <h1>Keelson</h1>
        <nav aria-label="Views">
          <a href="#/" aria-current={view() === "" ? "page" : undefined}>Cluster</a>
        </nav>
        <span class="rest" />
        <Show when={hello()}>{(h) => <span class="user">{h().user}</span>}</Show>
        <button class="plain" onClick={() => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark")} title={`Colours: ${theme()}`} aria-label="Switch between light and dark">◐</button>
      </header>
      <Picture shown={view() === ""} />
    </>
  );
}
