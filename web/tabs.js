// The tabs, and the view that is open. A tab is a button in index.html and a maker here, by the same name.

import { call, on } from "./client.js";
import { $ } from "./dom.js";
import { setOpen } from "./draw.js";
import { setRunning, status } from "./messages.js";
import { state } from "./state.js";
import { ChatView } from "./views/chat.js";
import { CompareView } from "./views/compare.js";
import { DeviceView } from "./views/device.js";
import { ExperimentView } from "./views/experiment.js";
import { HeatmapView } from "./views/heatmap.js";
import { PreferencesView } from "./views/preferences.js";
import { RoutingView } from "./views/routing.js";
import { StoredView } from "./views/stored.js";
import { answer, rewrite, writeAside } from "./writing.js";

const makers = {
  heatmap: (root) => new HeatmapView(root, state, (counts) => call("balance", { counts })),
  experiment: (root) => new ExperimentView(root, state, writeAside),
  preferences: (root) => new PreferencesView(root, state),
  chat: (root) => new ChatView(root, state, answer, () => void call("stop")),
  compare: (root) => new CompareView(root, state, (prompt, onToken) => writeAside(prompt, {}, onToken)),
  routing: (root) => new RoutingView(root, state, () => void rewrite()),
  device: (root) => new DeviceView(root, state, { check, measure }),
  stored: (root) => new StoredView(root, call),
};
/** Each view keeps its element, so that what was typed into it is still there when it is shown again. */
const made = new Map();

on("checked", ({ done, total }) => made.get("device").view.progress(done, total));

/** Nothing else may use the worker meanwhile. */
async function alone(method, text) {
  setRunning(true, text);
  try {
    return await call(method);
  } catch (error) {
    if (error.hasModel === false) state.info = undefined;
    throw error;
  } finally {
    setRunning(false);
    $("progress").hidden = true;
    status("");
  }
}

const check = () => alone("check", "Checking the device …");
const measure = () => alone("measure", "Measuring the device …");

export function show(name) {
  for (const tab of $("tabs").children) {
    const current = tab.dataset.view === name;
    tab.setAttribute("aria-selected", current);
    tab.tabIndex = current ? 0 : -1;
  }
  if (!made.has(name)) {
    const root = document.createElement("div");
    made.set(name, { root, view: makers[name](root) });
  }
  $("view").setAttribute("aria-labelledby", `tab-${name}`);
  $("view").replaceChildren(made.get(name).root);
  setOpen(made.get(name).view);
}

$("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) show(tab.dataset.view);
});
$("tabs").addEventListener("keydown", (event) => {
  const tabs = [...$("tabs").children];
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = tabs.at(to % tabs.length);
  next.focus();
  show(next.dataset.view);
});

$("try-experiment").addEventListener("click", () => {
  show("experiment");
  $("tab-experiment").focus({ preventScroll: true });
  // On a phone it lies below the fold.
  if ($("tabs").getBoundingClientRect().top > window.innerHeight / 2) $("tabs").scrollIntoView();
});
