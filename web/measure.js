// Measures once, for a model on a software device, whether the reference is quicker: in a worker of its own, while nothing else runs.

import { remember, remembered } from "./settings.js";
import { state } from "./state.js";

/** The page has been idle for so long, in milliseconds. */
const IDLE = 2000;
const CHECK_EVERY = 250;

let worker;
let timer;

export const measured = () => remembered("measured");

/** Of another model, or of none, from now on. */
export function stopMeasuring() {
  clearInterval(timer);
  worker?.terminate();
  worker = undefined;
}

/** Measures `model` and keeps the comparison under `key`; then `done(comparison)`. Whatever the page is asked meanwhile comes first. */
export function measureOnce(model, key, done) {
  stopMeasuring();
  let idleSince = performance.now();
  timer = setInterval(() => {
    if (state.running || document.hidden) {
      worker?.terminate();
      worker = undefined;
      idleSince = performance.now();
    } else if (!worker && performance.now() - idleSince > IDLE) {
      begin();
    }
  }, CHECK_EVERY);

  function begin() {
    const own = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker = own;
    own.addEventListener("message", ({ data }) => {
      if (data.event || worker !== own) return;
      stopMeasuring();
      // A device that fails here fails when it is used, too, and says so then.
      if (!data.result) return;
      remember("measured", { ...measured(), [key]: data.result });
      done(data.result);
    });
    own.postMessage({ call: 0, method: "compare", data: { model } });
  }
}
