// The page: talks to the worker, keeps what was generated, and lets the views show it.

import { bytes } from "./dom.js";
import { CompareView } from "./views/compare.js";
import { DeviceView } from "./views/device.js";
import { HeatmapView } from "./views/heatmap.js";
import { PreferencesView } from "./views/preferences.js";
import { RoutingView, asTrained, describe, isChanged } from "./views/routing.js";
import { StoredView } from "./views/stored.js";
import { TextView } from "./views/text.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["maxTokens", "temperature", "topK", "topP", "minP", "repeatPenalty", "seed"];

const state = {
  /** What `Engine.describe` says, once a model is loaded. */
  info: undefined,
  running: false,
  /** Answers begun since the page was opened. */
  answers: 0,
  /** Which of the layers with a router colours the text. */
  layer: 0,
  /** The prompt and the answer that are shown, and what the routers did with each token. */
  tokens: [],
  rows: [],
  numPrompt: 0,
  /** What is changed about the routing, as `GenerateOptions.routing` has it. */
  routing: asTrained(),
  /** The same since the model was loaded, all answers one after the other; only tokens whose routing is known. */
  all: { tokens: [], rows: [] },
};

// The worker

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let calls = 0;

function call(method, data) {
  calls++;
  worker.postMessage({ call: calls, method, data });
  return new Promise((resolve, reject) => waiting.set(calls, { resolve, reject }));
}

worker.addEventListener("message", ({ data }) => {
  if (data.event) {
    events[data.event](data.data);
    return;
  }
  const { resolve, reject } = waiting.get(data.call);
  waiting.delete(data.call);
  if (data.error) reject(Object.assign(new Error(data.error.message), data.error));
  else resolve(data.result);
});

worker.addEventListener("error", (event) => {
  const error = new Error(`the worker stopped: ${event.message ?? "it could not be loaded"}. Reload the page.`);
  for (const { reject } of waiting.values()) reject(error);
  waiting.clear();
  complain(error);
});

/** The run whose tokens arrive: `{ tokens, rows, numPrompt, shown }`. */
let run;

const events = {
  progress(data) {
    if (data.note) {
      notice(data.note);
      return;
    }
    showProgress(data);
  },

  prompt({ tokens }) {
    run.tokens.push(...tokens);
    run.numPrompt = tokens.length;
    state.numPrompt = tokens.length;
    views.text.reset();
  },

  token({ id, text, routing }) {
    run.started ??= performance.now();
    run.tokens.push({ id, text });
    const known = run.rows.length;
    run.rows.push(...routing);
    state.all.rows.push(...routing);
    state.all.tokens.push(...run.tokens.slice(known, run.rows.length));
    const numNew = run.tokens.length - run.numPrompt;
    const seconds = (performance.now() - run.started) / 1000;
    $("speed").textContent = numNew > 1 ? `${numNew} tokens, ${((numNew - 1) / seconds).toFixed(1)} tokens/s` : "";
    drawSoon();
  },

  checked({ done, total }) {
    made.get("device").view.progress(done, total);
  },

  lost({ tokens }) {
    notice(`The GPU device was lost after ${tokens} tokens. The model is being loaded again, and goes on from there.`);
  },
};

// Loading

let progressSince;

function showProgress({ phase, file, done, total }) {
  if (progressSince?.phase !== phase) progressSince = { phase, at: performance.now(), done: phase === "fetch" ? done : 0 };
  const seconds = (performance.now() - progressSince.at) / 1000;
  const rate = seconds > 0.2 ? `, ${bytes((done - progressSince.done) / seconds)}/s` : "";
  $("progress").hidden = false;
  if (total) $("progress-bar").value = done / total;
  else $("progress-bar").removeAttribute("value");
  const what = phase === "fetch" ? `fetching ${file}` : "moving the weights to the device";
  $("progress-text").textContent = `${what}: ${bytes(done)}${total ? ` of ${bytes(total)}` : ""}${rate}`;
}

function chosenModel() {
  const kind = $("model-kind").value;
  const name = $("model-name").value.trim();
  switch (kind) {
    case "hub":
      if (!/^[\w.-]+\/[\w.-]+(@[\w.-]+)?$/.test(name)) throw new Error("A model on the hub is named like org/name.");
      return { kind, id: name };
    case "url":
      return { kind, url: new URL(name, location.href).href };
    case "folder":
      if ($("model-folder").files.length === 0) throw new Error("Choose the folder that holds config.json and the weights.");
      return { kind, files: [...$("model-folder").files] };
    default:
      return { kind };
  }
}

async function load() {
  if (state.running) return;
  notice("");
  setRunning(true, "Loading …");
  progressSince = undefined;
  const started = performance.now();
  try {
    const info = await call("load", { model: chosenModel(), device: $("device").value });
    Object.assign(state, { info, tokens: [], rows: [], numPrompt: 0, layer: 0, routing: asTrained(), all: { tokens: [], rows: [] } });
    showChanged();
    const { temperature, topK, topP, minP, repeatPenalty } = info.suggested;
    Object.entries({ temperature, topK, topP, minP, repeatPenalty }).forEach(([name, value]) => ($(name).value = round(value)));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    status(`Ready in ${seconds} s, from ${info.from}. It runs on ${info.device.name || "the GPU"} (${info.device.kind}).`);
    if (info.device.kind === "reference" && $("device").value !== "cpu") explainNoGpu();
    views.text.reset();
  } catch (error) {
    status("");
    complain(error);
  } finally {
    $("progress").hidden = true;
    setRunning(false);
  }
}

const round = (value) => Math.round(value * 1e4) / 1e4;

function explainNoGpu() {
  const link = Object.assign(document.createElement("a"), { href: "https://github.com/gpuweb/gpuweb/wiki/Implementation-Status", textContent: "which browsers have WebGPU" });
  notice("This browser offers no WebGPU adapter, so the model runs on the CPU reference: the same numbers, slowly. See ", link, ".");
}

// Writing

function options() {
  const numbers = NUMBERS.map((name) => [name, Number($(name).value)]);
  return { ...Object.fromEntries(numbers), routing: state.routing };
}

/** Generates into what the page shows. `{ tokens, rows, text, stop }`, or nothing after an error. */
async function generate(prompt) {
  if (state.running || !state.info) return undefined;
  if (!prompt) {
    notice("Write a prompt first.");
    return undefined;
  }
  notice("");
  setRunning(true, "Writing …");
  state.answers++;
  run = { tokens: [], rows: [], numPrompt: 0 };
  Object.assign(state, { tokens: run.tokens, rows: run.rows, numPrompt: 0 });
  $("speed").textContent = "";
  views.text.reset();
  try {
    const summary = await call("generate", { prompt, options: options() });
    const why = { eos: "the model ended its text", max_tokens: "as many tokens as asked for", context_full: "the context is full", cancelled: "stopped", stop_string: "a stop text was reached" };
    status(`${summary.ids.length} new tokens: ${why[summary.stop]}.`);
    return { ...run, text: summary.text, stop: summary.stop };
  } catch (error) {
    status("");
    complain(error);
    return undefined;
  } finally {
    setRunning(false);
    draw();
  }
}

function showChanged() {
  const changed = isChanged(state.routing);
  $("changed").hidden = !changed;
  $("changed").textContent = changed ? `This is no longer the model as trained: ${describe(state.routing)}.` : "";
}

let rewriting = false;

/** Writes the answer anew after a change of the routing; of several changes at once, with the last. */
async function rewrite() {
  showChanged();
  if (rewriting) void call("stop");
  if (rewriting || state.tokens.length === 0) return;
  rewriting = true;
  try {
    if (state.running) {
      await call("stop");
      await idle();
    }
    let written;
    do {
      written = JSON.stringify(state.routing);
      await generate($("prompt").value);
    } while (written !== JSON.stringify(state.routing));
  } finally {
    rewriting = false;
  }
}

/** Resolves when nothing runs. */
async function idle() {
  while (state.running) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Nothing else may use the worker meanwhile. */
async function check() {
  setRunning(true, "Checking the device …");
  try {
    return await call("check");
  } finally {
    setRunning(false);
    status("");
  }
}

function setRunning(running, text) {
  state.running = running;
  $("generate").disabled = running || !state.info;
  $("load").disabled = running;
  $("stop").disabled = !running || !state.info;
  document.body.classList.toggle("running", running);
  if (text) status(text);
  drawSoon();
}

function status(text) {
  $("status").textContent = text;
}

function notice(...content) {
  $("notice").replaceChildren(...content);
  $("notice").hidden = content.join("") === "";
}

function complain(error) {
  notice(error.hint ? `${error.message}. Hint: ${error.hint}.` : error.message);
}

// Views

const views = {
  text: new TextView($("text-view"), state),
  open: undefined,
};
const makers = {
  heatmap: (root) => new HeatmapView(root, state),
  preferences: (root) => new PreferencesView(root, state),
  compare: (root) => new CompareView(root, state, generate),
  routing: (root) => new RoutingView(root, state, () => void rewrite()),
  device: (root) => new DeviceView(root, state, check),
  stored: (root) => new StoredView(root, call),
};
/** Each view keeps its element, so that what was typed into it is still there when it is shown again. */
const made = new Map();

function show(name) {
  const tabs = [...$("tabs").children];
  for (const tab of tabs) {
    const current = tab.dataset.view === name;
    tab.setAttribute("aria-selected", current);
    tab.tabIndex = current ? 0 : -1;
  }
  if (!made.has(name)) {
    const root = document.createElement("div");
    made.set(name, { root, view: makers[name](root) });
  }
  views.open = made.get(name).view;
  $("view").replaceChildren(made.get(name).root);
  void views.open.update();
}

let drawing = false;

/** At most once per frame: tokens may come faster. */
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  views.text.update();
  if (!(views.open instanceof StoredView)) views.open?.update();
}

// Controls

$("model-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void load();
});
$("model-kind").addEventListener("change", () => {
  const kind = $("model-kind").value;
  $("model-name-label").hidden = kind !== "hub" && kind !== "url";
  $("model-folder-label").hidden = kind !== "folder";
  $("model-name-title").textContent = kind === "hub" ? "Name" : "Address of its directory";
  $("model-name").placeholder = kind === "hub" ? "org/name" : "https://…/model/";
});
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
$("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) show(tab.dataset.view);
});
$("tabs").addEventListener("keydown", (event) => {
  const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!move) return;
  const tabs = [...$("tabs").children];
  const next = tabs[(tabs.indexOf(document.activeElement) + move + tabs.length) % tabs.length];
  next.focus();
  show(next.dataset.view);
});
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  const now = root.dataset.theme ?? (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});

show("heatmap");
// For tests and for the curious: everything that the views show.
window.moebius = { state, call };
void load();
