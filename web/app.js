// The page begins here: its controls, and what happens without a click.

import { call } from "./client.js";
import { $ } from "./dom.js";
import { setText } from "./draw.js";
import { showExamples } from "./examples.js";
import { explainTerms } from "./glossary.js";
import { follow } from "./link.js";
import { load, showKind } from "./loading.js";
import { notice } from "./messages.js";
import { keepOffline } from "./offline.js";
import { controlPace } from "./pace.js";
import { remembered, rememberFields, showTheme, switchTheme } from "./settings.js";
import { state } from "./state.js";
import { show } from "./tabs.js";
import { TextView } from "./views/text.js";
import { generate, showChanged } from "./writing.js";

$("model-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void begin();
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
$("theme").addEventListener("click", switchTheme);

showTheme(remembered("theme"));
rememberFields();
controlPace();
explainTerms(document);
showExamples();
setText(new TextView($("text-view"), state));
show("heatmap");
// For tests and for the curious: everything that the views show.
window.moebius = { state, call };

/** What the address asks for, until it is done. */
let link = follow(location.hash);

/** Loads the model. The first one does what the address asks for: without one it writes. */
async function begin() {
  if (!(await load()) || !link) return;
  const { write, routing, layer, settings } = link;
  link = undefined;
  state.routing = routing;
  if (layer < state.info.model.moeLayers.length) state.layer = layer;
  Object.entries(settings).forEach(([name, value]) => ($(name).value = value));
  showChanged();
  if (write) await generate($("prompt").value);
}

showKind();
if ($("model-kind").value === "bundled") void begin();
else notice(`This link is about the model ${$("model-name").value}. Press “Load” to fetch it: then it writes.`);
void keepOffline();
