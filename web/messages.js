// What the page says in words: what happens, what went wrong, and whether something runs.

import { drawSoon } from "./draw.js";
import { $ } from "./dom.js";
import { state } from "./state.js";

export function status(text) {
  $("status").textContent = text;
}

export function notice(...content) {
  $("notice").replaceChildren(...content);
  $("notice").hidden = content.join("") === "";
}

export function complain(error) {
  notice(error.hint ? `${error.message}. Hint: ${error.hint}.` : error.message);
}

/** Only one thing may use the engine at a time: meanwhile its buttons are off. */
export function setRunning(running, text) {
  state.running = running;
  $("generate").disabled = running || !state.info;
  $("load").disabled = running;
  $("stop").disabled = !running || !state.info;
  document.body.classList.toggle("running", running);
  if (text) status(text);
  drawSoon();
}
