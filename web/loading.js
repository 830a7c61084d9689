// Which model, and what is said while it loads.

import { call, on } from "./client.js";
import { $, bytes } from "./dom.js";
import { resetText } from "./draw.js";
import { complain, notice, setRunning, status } from "./messages.js";
import { forModel, state } from "./state.js";
import { showChanged } from "./writing.js";

let progressSince;

on("progress", (data) => {
  if (data.note) notice(data.note);
  else showProgress(data);
});

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

export async function load() {
  if (state.running) return;
  notice("");
  setRunning(true, "Loading …");
  progressSince = undefined;
  const started = performance.now();
  try {
    const info = await call("load", { model: chosenModel(), device: $("device").value });
    forModel(info);
    showChanged();
    const { temperature, topK, topP, minP, repeatPenalty } = info.suggested;
    Object.entries({ temperature, topK, topP, minP, repeatPenalty }).forEach(([name, value]) => ($(name).value = round(value)));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    status(`Ready in ${seconds} s, from ${info.from}. It runs on ${info.device.name || "the GPU"} (${info.device.kind}).`);
    if (info.device.kind === "reference" && $("device").value !== "cpu") explainNoGpu();
    resetText();
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

/** The fields that the kind of model needs. */
export function showKind() {
  const kind = $("model-kind").value;
  $("model-name-label").hidden = kind !== "hub" && kind !== "url";
  $("model-folder-label").hidden = kind !== "folder";
  $("model-name-title").textContent = kind === "hub" ? "Name" : "Address of its directory";
  $("model-name").placeholder = kind === "hub" ? "org/name" : "https://…/model/";
}
