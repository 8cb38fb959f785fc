import "./style.css";
import { render } from "solid-js/web";
import { App } from "./app";
import { start } from "./live";
import { pause } from "./pace";
import { begin } from "./theme";

// The page is made in parts, each in a task of its own, after what it consists of has been read.
await pause();
begin();
await pause();
start();
await pause();
render(() => <App />, document.getElementById("root")!);
