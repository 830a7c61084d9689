// The npm package: what wasm-bindgen generated, with `generate` as an async iterator and the two usual kinds of files.

import { Engine } from "./moebius.js";

export * from "./moebius.js";
export { default } from "./moebius.js";

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

export function fileFromBlob(blob) {
  return {
    size: blob.size,
    read: async (start, end) => new Uint8Array(await blob.slice(start, end).arrayBuffer()),
  };
}

export async function fileFromUrl(url) {
  const head = await fetch(url, { method: "HEAD" });
  const size = Number(head.headers.get("Content-Length"));
  if (!head.ok || !size) throw new Error(`${url}: no file of a known length (HTTP ${head.status})`);
  return {
    size,
    read: async (start, end) => {
      const response = await fetch(url, { headers: { Range: `bytes=${start}-${end - 1}` } });
      if (response.status !== 206) throw new Error(`${url}: the server does not answer range requests (HTTP ${response.status})`);
      return new Uint8Array(await response.arrayBuffer());
    },
  };
}
