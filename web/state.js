// What the page knows. The views read it; loading.js and writing.js change it.

import { asTrained } from "./views/routing.js";

export const state = {
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
  /** How the shown answer was made: `{ prompt, messages, options, header }`, the last being the first line of its trace once it is written. */
  made: undefined,
  /** What is changed about the routing, as `GenerateOptions.routing` has it. */
  routing: asTrained(),
  /** The same since the model was loaded, all answers one after the other; only tokens whose routing is known. */
  all: { tokens: [], rows: [] },
};

/** Another model: nothing of what the one before it wrote remains. */
export function forModel(info) {
  // The last layer distinguishes texts best.
  const layer = info.model.moeLayers.length - 1;
  Object.assign(state, { info, tokens: [], rows: [], numPrompt: 0, made: undefined, layer, routing: asTrained(), all: { tokens: [], rows: [] } });
}
