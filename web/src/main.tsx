import "./style.css";
import { render } from "solid-js/web";
import { App } from "./app";
import { pause } from "./pace";

// What the page shows is made after what it consists of has been read.
await pause();
render(() => <App />, document.getElementById("root")!);
