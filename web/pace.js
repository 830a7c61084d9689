// How fast the answer comes: as fast as it can, slower, or one token at a time.

import { call } from "./client.js";
import { $ } from "./dom.js";
import { state } from "./state.js";
import { generate } from "./writing.js";

/** Tokens per second of the slider's places. */
const SPEEDS = [1, 2, 5, 10, Infinity];

const chosen = () => SPEEDS[Number($("pace").value)];
let stepping = false;

function setPace() {
  $("pace-text").textContent = chosen() === Infinity ? "as fast as it can" : `${chosen()} token${chosen() === 1 ? "" : "s"} per second`;
  $("pace").setAttribute("aria-valuetext", $("pace-text").textContent);
  // A worker that is not there complains by itself.
  call("pace", { ms: stepping ? Infinity : 1000 / chosen() }).catch(() => {});
}

function setStepping(on) {
  stepping = on;
  $("go-on").hidden = !on;
  setPace();
}

/** Starts an answer that waits after each token, stops a running one after the next, or lets a waiting one go one further. */
async function step() {
  if (stepping && state.running) {
    void call("advance");
    return;
  }
  setStepping(true);
  if (state.running) return;
  await generate($("prompt").value);
  setStepping(false);
}

export function controlPace() {
  $("pace").addEventListener("input", setPace);
  $("step").addEventListener("click", () => void step());
  $("go-on").addEventListener("click", () => setStepping(false));
  // Whatever is begun otherwise runs through.
  $("prompt-form").addEventListener("submit", () => stepping && !state.running && setStepping(false));
  setPace();
}
