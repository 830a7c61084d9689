// Owns the Engine. The page calls by message, and is told of progress and tokens by message: it never waits.

import { decide, softwareName } from "./choice.js";
import init, { Engine, balance, checkDevice, compareWithReference, fetchModel, filesFromFolder, filesFromParts, listStored, measureDevice, referenceMemory, removeModel, verifyModel } from "./pkg/index.js";

const MAX_RECOVERIES = 3;
const ready = init();
let engine;
/** What the engine was loaded from, to load it again after the device was lost. */
let loaded;
let stopping = false;
/** What the routers did in the last answer, one entry for each token: the next one may begin alike, as every turn of a conversation does. */
let told = { ids: [], rows: [] };
/** Milliseconds between two tokens at least; Infinity waits for `advance` before each. */
let pace = 0;
let wake = () => {};
/** What `likeliest` computes: the engine can do one thing at a time. */
let asking = Promise.resolve();
const settled = () => asking.catch(() => {});

const emit = (event, data) => postMessage({ event, data });

/** The model that comes with the page, and the list of its files with their sums. */
const BUNDLED = { url: new URL("./models/demo/", location.href), list: new URL("./pkg/demo.json", location.href) };

/** The files of a model, what messages call it, and where the files are, in words. */
async function gather({ kind, id, url, files }, tell) {
  if (kind === "folder") return { ...filesFromFolder(files), from: "folder" };
  if (kind === "file") return { ...filesFromParts(files), from: "file" };
  return await fetchModel(kind === "bundled" ? BUNDLED : (id ?? url), {}, tell);
}

/** The model before stays until the new one has been checked, and comes back if that cannot be loaded all the same. */
async function replaceBy(next, tell) {
  const makeRoom = () => {
    engine?.free();
    engine = undefined;
  };
  try {
    engine = await open(next, tell, makeRoom);
    loaded = next;
  } catch (error) {
    if (!engine && loaded) engine = await open(loaded, tell).catch(() => undefined);
    throw error;
  }
}

/** `makeRoom()` is called once everything has been checked that can be without reading weights. */
async function open({ files, name, device, expertMemory }, tell, makeRoom = () => {}) {
  const onEvent = (event) => {
    if (event.type === "device") makeRoom();
    else tell(event);
  };
  try {
    return await Engine.load(files, { device, name, expertMemory }, onEvent);
  } catch (error) {
    // Without a GPU the same numbers come from the reference.
    if (error.name !== "NoAdapterError" || device !== "auto") throw error;
    tell({ type: "note", text: "This browser offers no WebGPU adapter: the model runs on the CPU reference." });
    return await Engine.load(files, { device: "cpu", name }, onEvent);
  }
}

/** How many entries two lists begin alike with. */
function commonLength(one, other) {
  const at = one.findIndex((value, index) => value !== other[index]);
  return at === -1 ? one.length : at;
}

async function paced() {
  if (pace === 0 || stopping) return;
  await new Promise((resolve) => {
    wake = resolve;
    if (pace < Infinity) setTimeout(resolve, pace);
  });
}

/** Asked for at once, so that it is known when the files are there. */
const adapterAsked = navigator.gpu?.requestAdapter().catch(() => null);

/** The device to load a model on, and why where that is the page's choice. */
async function chooseDevice(wanted, { files, name }, { measured, expertMemory }) {
  if (wanted !== "auto") return { device: wanted === "gpu" ? "auto" : wanted };
  // The reference has no memory of its own that could be too small.
  if (expertMemory !== "auto") return { device: "auto" };
  const software = softwareName((await adapterAsked)?.info);
  if (!software) return { device: "auto" };
  // What is wrong with the files is said when they are loaded.
  const memory = await referenceMemory(files, name).catch(() => undefined);
  const bytes = Object.values(files).reduce((sum, file) => sum + file.size, 0);
  return decide({ software, memory, bytes, measured });
}

/** As `moebius trace` names a model: its name on the hub, or the last part of its path. */
function titleOf({ kind, id, url, files }) {
  if (kind === "folder") return files[0].webkitRelativePath.split("/")[0];
  if (kind === "file") return files[0].name;
  if (kind === "bundled") return "demo";
  return kind === "hub" ? id.split("@")[0] : url.split("/").filter(Boolean).at(-1);
}

const methods = {
  async load({ model, device, expertMemory = "auto", measured }) {
    await ready;
    const notes = [];
    const tell = (data) => {
      if (data.type === "note") notes.push(data.text);
      emit("progress", data);
    };
    const next = await gather(model, tell);
    const choice = await chooseDevice(device, next, { measured, expertMemory });
    await settled();
    try {
      await replaceBy({ ...next, title: titleOf(model), device: choice.device, expertMemory }, tell);
    } catch (error) {
      // Every message says which model it is about.
      if (error instanceof Error && !error.message.includes(next.name)) error.message = `${next.name}: ${error.message}`;
      throw error;
    }
    return { ...engine.describe(), from: next.from, remarks: notes, name: next.name, why: choice.why };
  },

  async tokenize({ text }) {
    return engine.tokenize(text);
  },

  /** After a prompt, or as the answer in a conversation. Emits every token with its routing, and gives the summary. */
  async generate({ prompt, messages, options, run }) {
    stopping = false;
    await settled();
    const chat = messages && engine.chatPrompt(messages);
    const promptTokens = chat ? chat.tokens : engine.tokenize(prompt);
    const asked = { trace: true, ...options, ...(chat && { stop: chat.stop, maxTokens: chat.maxTokens }) };
    emit("prompt", { run, tokens: promptTokens });
    const promptIds = promptTokens.map(({ id }) => id);
    const done = { promptIds, ids: [], text: "", thinking: "", answer: "" };
    let numRows = 0;
    const before = told;
    const routedBy = JSON.stringify(asked.routing ?? {});
    const known = before.engine === engine && before.routedBy === routedBy ? commonLength(before.ids, promptIds) : 0;
    told = { ids: [...promptIds], rows: [], engine, routedBy };
    for (let recoveries = 0; ; recoveries++) {
      const knownRouting = recoveries === 0 ? Math.min(known, before.rows.length) : 0;
      const rest = { ...asked, knownRouting, resume: done.ids.length, maxTokens: asked.maxTokens - done.ids.length };
      const steps = engine.generate([...promptIds, ...done.ids], rest);
      // The whole of what is known runs again after a loss: its routing has been told already.
      let skipped = numRows;
      let isFirst = true;
      try {
        let step = await steps.next();
        while (!step.done && !stopping) {
          const { id, text, parts } = step.value;
          // What was not run is known from the answer before.
          const reused = isFirst && recoveries === 0 ? before.rows.slice(0, promptIds.length - step.value.routing.length) : [];
          const routing = [...reused, ...step.value.routing].slice(skipped);
          [skipped, isFirst] = [0, false];
          told.rows.push(...routing);
          told.ids.push(id);
          numRows += routing.length;
          done.ids.push(id);
          done.text += text;
          for (const { part, text } of parts) done[part] += text;
          emit("token", { run, id, text, parts, routing });
          await paced();
          step = await steps.next();
        }
        // The engine is free again only after this.
        if (!step.done) await steps.return();
        const header = engine.traceHeader(loaded.title);
        return { ...(step.done ? step.value : { stop: "cancelled" }), ...done, header };
      } catch (error) {
        if (error.name !== "DeviceLostError" || recoveries >= MAX_RECOVERIES) throw error;
        emit("lost", { run, message: error.message, tokens: done.ids.length });
        engine.free();
        engine = await open(loaded, (data) => emit("progress", data));
        if (done.ids.length >= asked.maxTokens) return { ...done, stop: "max_tokens" };
      }
    }
  },

  /** How evenly the experts of each layer are used. `counts`: `[layer][expert]`. */
  async balance({ counts }) {
    await ready;
    return counts.map((loads) => balance(Uint32Array.from(loads)));
  },

  /** Tokens per second of a model on WebGPU and on the reference. Asked of a worker of its own. */
  async compare({ model }) {
    await ready;
    const { files, name } = await gather(model, () => {});
    return await compareWithReference(files, name);
  },

  async check() {
    await ready;
    return await checkDevice((done, total) => emit("checked", { done, total }));
  },

  /** What the device makes of the loaded model, which gives way to it and is loaded again afterwards. */
  async measure() {
    await settled();
    engine?.free();
    engine = undefined;
    try {
      return await measureDevice(loaded.files);
    } finally {
      engine = await open(loaded, (data) => emit("progress", data));
    }
  },

  async stop() {
    stopping = true;
    wake();
  },

  /** `ms`: as `pace`. */
  async pace({ ms }) {
    pace = ms;
    wake();
  },

  async advance() {
    wake();
  },

  /** After every token of `ids`, the likeliest to come next. */
  async likeliest({ ids, count, routing }) {
    asking = engine.likeliest(Uint32Array.from(ids), count, routing);
    return await asking;
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
    const { name, message = String(error), hint } = error;
    postMessage({ call, error: { name, message, hint, hasModel: engine !== undefined } });
  }
});
