// Owns the Engine. The page calls by message, and hears about progress and tokens by message: it never waits.

import init, { Engine, checkDevice, fileFromBlob } from "./pkg/index.js";
import { hubSource, listStored, listedSource, openModel, removeModel, urlSource, verifyModel } from "./store.js";

const MAX_RECOVERIES = 3;
const ready = init();
let engine;
/** What the engine was loaded from, to load it again after the device was lost. */
let loaded;
let stopping = false;

const emit = (event, data) => postMessage({ event, data });

function sourceOf(model) {
  switch (model.kind) {
    case "bundled":
      return listedSource(new URL("./models/demo/", location.href).href, new URL("./pkg/demo.json", location.href).href);
    case "hub":
      return hubSource(model.id);
    case "url":
      return urlSource(model.url.endsWith("/") ? model.url : `${model.url}/`);
    default:
      throw new Error(`no such kind of model: ${model.kind}`);
  }
}

/** The files that lie in the chosen folder itself, by their names: folders in it may hold another layout of the same model. */
const localFiles = (list) => Object.fromEntries(list.filter(({ webkitRelativePath }) => webkitRelativePath.split("/").length <= 2).map((file) => [file.name, fileFromBlob(file)]));

async function open(files, device) {
  let weights = false;
  const onEvent = (event) => {
    if (event.doneBytes !== undefined) {
      weights = true;
      emit("progress", { phase: "upload", done: event.doneBytes, total: event.totalBytes });
    }
  };
  try {
    return await Engine.load(files, { device }, onEvent);
  } catch (error) {
    // Without a GPU the same numbers come from the reference, only slower.
    if (error.name !== "NoAdapterError" || weights) throw error;
    emit("progress", { note: "This browser offers no WebGPU adapter: the model runs on the CPU reference." });
    return await Engine.load(files, { device: "cpu" }, onEvent);
  }
}

const methods = {
  async load({ model, device }) {
    await ready;
    const onProgress = (data) => emit("progress", data);
    const local = model.kind === "folder" && { files: localFiles(model.files), from: "folder" };
    const { files, from } = local || (await openModel(sourceOf(model), onProgress));
    engine?.free();
    engine = undefined;
    engine = await open(files, device);
    loaded = { files, device };
    return { ...engine.describe(), from };
  },

  async tokenize({ text }) {
    return engine.tokenize(text);
  },

  /** Emits every token with its routing, and gives the summary. */
  async generate({ prompt, options, run }) {
    stopping = false;
    const promptTokens = engine.tokenize(prompt);
    emit("prompt", { run, tokens: promptTokens });
    const promptIds = promptTokens.map(({ id }) => id);
    const newIds = [];
    let numRows = 0;
    let text = "";
    for (let recoveries = 0; ; recoveries++) {
      const rest = { ...options, trace: true, maxTokens: options.maxTokens - newIds.length };
      const steps = engine.generate([...promptIds, ...newIds], rest);
      // The whole of what is known runs again after a loss: its routing has been told already.
      let known = numRows;
      try {
        let step = await steps.next();
        while (!step.done && !stopping) {
          const routing = step.value.routing.slice(known);
          known = 0;
          numRows += routing.length;
          newIds.push(step.value.id);
          text += step.value.text;
          emit("token", { run, id: step.value.id, text: step.value.text, routing });
          step = await steps.next();
        }
        if (step.done) return { ...step.value, promptIds, ids: newIds, text };
        await steps.return();
        return { promptIds, ids: newIds, text, stop: "cancelled" };
      } catch (error) {
        if (error.name !== "DeviceLostError" || recoveries >= MAX_RECOVERIES) throw error;
        emit("lost", { run, message: error.message, tokens: newIds.length });
        engine.free();
        engine = await open(loaded.files, loaded.device);
        if (newIds.length >= options.maxTokens) return { promptIds, ids: newIds, text, stop: "max_tokens" };
      }
    }
  },

  async check() {
    await ready;
    return await checkDevice((done, total) => emit("checked", { done, total }));
  },

  async stop() {
    stopping = true;
  },

  async stored() {
    await ready;
    return await listStored();
  },

  async verify({ base }) {
    await ready;
    return await verifyModel(base);
  },

  async remove({ base }) {
    return await removeModel(base);
  },
};

addEventListener("message", async ({ data: { call, method, data } }) => {
  try {
    postMessage({ call, result: await methods[method](data ?? {}) });
  } catch (error) {
    postMessage({ call, error: { name: error.name, message: error.message ?? String(error), hint: error.hint } });
  }
});
