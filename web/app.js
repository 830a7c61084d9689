// The page begins here: its controls, and what happens without a click.

import { call } from "./client.js";
import { $ } from "./dom.js";
import { setText } from "./draw.js";
import { load, showKind } from "./loading.js";
import { keepOffline } from "./offline.js";
import { state } from "./state.js";
import { show } from "./tabs.js";
import { TextView } from "./views/text.js";
import { generate } from "./writing.js";

$("model-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void load();
});
$("model-kind").addEventListener("change", showKind);
$("prompt-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void generate($("prompt").value);
});
$("stop").addEventListener("click", () => void call("stop"));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    void generate($("prompt").value);
  } else if (event.key === "Escape" && state.running) {
    void call("stop");
  }
});
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  const now = root.dataset.theme ?? (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});

setText(new TextView($("text-view"), state));
show("heatmap");
// For tests and for the curious: everything that the views show.
window.moebius = { state, call };
void load();
void keepOffline();
