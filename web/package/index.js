// The npm package: what wasm-bindgen generated, with models by name, `generate` as an async iterator, and the usual kinds of files.

import { stoppedBy } from "./files.js";
import { Engine } from "./moebius.js";
import { sourceOf } from "./sources.js";
import { openModel, streamModel } from "./store.js";

export { fileFromBlob, fileFromUrl } from "./files.js";
export * from "./moebius.js";
export { default } from "./moebius.js";
export { NetError } from "./net.js";
export { filesFromFolder, filesFromParts } from "./sources.js";
export { listStored, removeModel, verifyModel } from "./store.js";

/** The files of a model by its name or address. */
export async function fetchModel(model, { signal, store = true } = {}, onEvent = () => {}) {
  signal?.throwIfAborted();
  const source = sourceOf(model);
  const work = { tell: onEvent, signal };
  try {
    const { files, from } = await (store ? openModel(source, work) : streamModel(source, work));
    return { files: stoppedBy(signal, files), from, name: source.base };
  } catch (error) {
    throw about(source.base, error, signal);
  }
}

Engine.open = async function (model, { signal, store, ...options } = {}, onEvent = () => {}) {
  const { files, name } = await fetchModel(model, { signal, store }, onEvent);
  try {
    const engine = await Engine.load(files, { name, ...options }, onEvent);
    if (!signal?.aborted) return engine;
    engine.free();
    throw signal.reason;
  } catch (error) {
    throw about(name, error, signal);
  }
};

/** Every message says which model it is about; the reason of a signal stays as it is. */
function about(name, error, signal) {
  if (signal?.aborted) return signal.reason;
  if (error instanceof Error && error.name !== "NetError" && !error.message.includes(name)) error.message = `${name}: ${error.message}`;
  return error;
}

/** Hands steps over one at a time: the engine goes on when the next one is asked for. */
Engine.prototype.generate = async function* (prompt, { signal, ...options } = {}) {
  let give;
  let proceed = () => {};
  const nextStep = () => new Promise((resolve) => (give = resolve));
  let waiting = nextStep();
  const done = this.run(prompt, options, (step) => {
    give(step);
    return new Promise((resolve) => (proceed = resolve));
  });
  // Failing is told through `done`, and must not count as unhandled while a step is on its way.
  done.catch(() => {});
  const finished = done.then(() => undefined);
  try {
    for (;;) {
      const step = await Promise.race([waiting, finished]);
      if (step === undefined) return await done;
      waiting = nextStep();
      yield step;
      proceed(!signal?.aborted);
    }
  } finally {
    // Reached with the engine still running only if the loop was left early.
    proceed(false);
    await done.catch(() => {});
  }
};

Engine.prototype.chat = async function* (messages, options = {}) {
  const { ids, maxTokens, stop } = this.chatPrompt(messages);
  return yield* this.generate(ids, { maxTokens, ...options, stop: [...(options.stop ?? []), ...stop] });
};
