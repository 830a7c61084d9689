// Which model, and what is said while it loads.

import { call, on } from "./client.js";
import { $, bytes, element } from "./dom.js";
import { resetText } from "./draw.js";
import { term } from "./glossary.js";
import { measureOnce, measured, stopMeasuring } from "./measure.js";
import { complain, notice, setRunning, status } from "./messages.js";
import { suggest } from "./settings.js";
import { forModel, state } from "./state.js";
import { showChanged } from "./writing.js";

let progressSince;

on("progress", (data) => {
  if (data.type === "note") notice(data.text);
  else showProgress(data);
});

function showProgress({ type, file, doneBytes: done, totalBytes: total, seconds: wait, done: numDone, total: numTotal }) {
  $("progress").hidden = false;
  if (type === "look" || type === "wait") {
    $("progress-bar").removeAttribute("value");
    $("progress-text").textContent = type === "look" ? `looking at ${file}` : `${file}: the server is busy and is asked again in ${wait} s`;
    return;
  }
  if (type === "kernels") {
    $("progress-bar").value = numTotal ? numDone / numTotal : 1;
    $("progress-text").textContent = `compiling kernels: ${numDone} of ${numTotal}`;
    return;
  }
  if (progressSince?.type !== type) progressSince = { type, at: performance.now(), done: type === "fetch" ? done : 0 };
  const seconds = (performance.now() - progressSince.at) / 1000;
  const rate = seconds > 0.2 ? `, ${bytes((done - progressSince.done) / seconds)}/s` : "";
  if (total) $("progress-bar").value = done / total;
  else $("progress-bar").removeAttribute("value");
  const what = type === "fetch" ? `fetching ${file}` : "moving the weights to the device";
  $("progress-text").textContent = `${what}: ${bytes(done)}${total ? ` of ${bytes(total)}` : ""}${rate}`;
}

export function chosenModel() {
  const kind = $("model-kind").value;
  const name = $("model-name").value.trim();
  switch (kind) {
    case "hub":
      // Addresses of its pages are as good.
      if (/^(https?:\/\/|hf\.co\/|huggingface\.co\/)/.test(name)) return { kind: "url", url: addressOf(name.replace(/^(?!https?:)/, "https://")) };
      if (!/^[\w.-]+\/[\w.-]+(:[\w.-]+)?(@[\w.-]+)?$/.test(name)) throw new Error(`A model on the hub is named like org/name, or org/name:Q4_K_M for one of its GGUF files, found "${name}".`);
      return { kind, id: name };
    case "url":
      if (!name) throw new Error("Write the address of a GGUF file, or of the folder that holds config.json and the weights.");
      return { kind, url: addressOf(name) };
    case "folder":
      if ($("model-folder").files.length === 0) throw new Error("Choose the folder that holds config.json and the weights.");
      return { kind, files: [...$("model-folder").files] };
    case "file":
      if ($("model-file").files.length === 0) throw new Error("Choose the GGUF file, or all files of a model in several.");
      return { kind, files: [...$("model-file").files] };
    default:
      return { kind };
  }
}

function addressOf(name) {
  try {
    return new URL(name, location.href).href;
  } catch {
    throw new Error(`"${name}" is no address. One looks like https://example.org/model/.`);
  }
}

let loads = 0;
/** What was loaded last, as `chosenModel` has it. */
export let loadedModel;

/** Whether it is there. */
export async function load() {
  if (state.running) return false;
  notice("");
  setRunning(true, "Loading …");
  progressSince = undefined;
  const started = performance.now();
  try {
    const model = chosenModel();
    stopMeasuring();
    const info = await call("load", { model, device: $("device").value, expertMemory: $("expert-memory").value, measured: measured() });
    loads++;
    loadedModel = model;
    forModel(info);
    showChanged();
    suggest(info.suggested, loads === 1);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    status(`Ready in ${seconds} s, from ${info.from}. It runs on ${info.device.name || "the GPU"} (${info.device.kind}).${onDevice(info.paging)}`);
    explainChoice(info.why);
    if (info.why?.kind === "guessed") measureOnce(model, info.why.key, (comparison) => explainChoice({ ...info.why, kind: "measured", comparison }));
    const withoutGpu = !info.why && info.device.kind === "reference" && $("device").value !== "cpu";
    notice(...info.remarks.filter((remark) => !withoutGpu || !remark.includes("WebGPU")).flatMap((remark) => [remark, " "]), ...(withoutGpu ? whyNoGpu() : []));
    showNotes(info.notes);
    describeModel(model.kind, info.model);
    resetText();
    return true;
  } catch (error) {
    if (state.info && error.hasModel === false) state.info = undefined;
    status(state.info ? `The model from before is still loaded: ${state.info.name}.` : "");
    complain(error);
    return false;
  } finally {
    $("progress").hidden = true;
    setRunning(false);
  }
}

/** How many experts are where they compute, unless all are. */
function onDevice(paging) {
  if (!paging) return "";
  const [slots, experts] = [paging.slots[0], paging.experts[0]];
  return ` ${slots} of ${experts} experts of each layer are on the device at a time, ${bytes(paging.slotBytes)}; the others are loaded when they are chosen.`;
}

/** The sentences beside the text speak of the model that is loaded. */
function describeModel(kind, { experts, expertsPerToken }) {
  const say = (name, text) => (document.querySelector(`.intro .${name}`).textContent = text);
  say("this-model", kind === "bundled" ? "the bundled model" : "this model");
  say("num-experts", experts);
  say("num-chosen", expertsPerToken);
}

/** Said where it stays: an answer follows at once. */
function explainChoice(why) {
  $("why").hidden = !why;
  if (!why) return;
  const { kind, prefers, comparison, neededBytes, roomBytes } = why;
  const played = ["This browser's ", term("WebGPU"), " is played by the processor"];
  const reference = [term("reference"), ", which needs no GPU, "];
  if (kind === "large") {
    $("why-title").textContent = "It runs on WebGPU, as it is too large for the reference";
    $("why-text").replaceChildren(...played, ". The ", ...reference, `would take ${bytes(neededBytes)} of memory for this model, and at most ${bytes(roomBytes)} are taken.`);
    return;
  }
  $("why-title").textContent = prefers ? "It runs on the reference, which is quicker here" : "It runs on WebGPU, though the processor plays it";
  const found = prefers ? [", and there the ", ...reference, comparison && !comparison.prefersReference ? "was taken to be quicker. " : "is quicker for a small model. "] : [". The ", ...reference, comparison ? "is not enough quicker. " : "may be slower for a model of this size. "];
  const speeds = comparison ? `Measured here once: ${comparison.reference.toFixed(0)} tokens per second on the reference, ${comparison.gpu.toFixed(0)} on WebGPU. ` : "";
  const better = comparison && comparison.prefersReference !== prefers ? `From the next time on it runs on ${comparison.prefersReference ? "the reference" : "WebGPU"}. ` : "";
  $("why-text").replaceChildren(...played, ...found, speeds, better, `To use ${prefers ? "WebGPU" : "the reference"} all the same, choose it under “Runs on” and load again.`);
}

function whyNoGpu() {
  if (!isSecureContext) return [`Browsers offer WebGPU only to pages that come by https or from this machine, so the model runs on the CPU reference: the same numbers. This page came from ${location.origin}.`];
  const link = Object.assign(document.createElement("a"), { href: "https://github.com/gpuweb/gpuweb/wiki/Implementation-Status", textContent: "which browsers have WebGPU" });
  return ["This browser offers no WebGPU adapter, so the model runs on the CPU reference: the same numbers, without a GPU. See ", link, "."];
}

/** What was decided about the files of the model, or left aside in them. */
function showNotes(notes) {
  $("notes").replaceChildren(...notes.map((note) => element("li", {}, `${note}.`)));
  $("notes-block").hidden = notes.length === 0;
  $("notes-title").textContent = `About the files of this model (${notes.length})`;
}

/** The fields that the kind of model needs. */
export function showKind() {
  const kind = $("model-kind").value;
  $("model-name-label").hidden = kind !== "hub" && kind !== "url";
  $("model-folder-label").hidden = kind !== "folder";
  $("model-file-label").hidden = kind !== "file";
  $("model-name-title").textContent = kind === "hub" ? "Name" : "Address of its directory, or of a GGUF file";
  $("model-name").placeholder = kind === "hub" ? "org/name" : "https://…/model/";
}
