// Calls the worker, and passes on the events that it sends.

import { complain } from "./messages.js";

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
const listeners = {};
let calls = 0;

/** What the method of worker.js gives. Fails with its error: `name`, `message`, perhaps a `hint`. */
export function call(method, data) {
  calls++;
  worker.postMessage({ call: calls, method, data });
  return new Promise((resolve, reject) => waiting.set(calls, { resolve, reject }));
}

/** Each event has one listener. */
export function on(event, listener) {
  listeners[event] = listener;
}

worker.addEventListener("message", ({ data }) => {
  if (data.event) {
    listeners[data.event]?.(data.data);
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
