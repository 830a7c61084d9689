// Lets the model write: one answer, or the same answer anew after its routing was changed.

import { call, on } from "./client.js";
import { $ } from "./dom.js";
import { draw, drawSoon, resetText } from "./draw.js";
import { complain, notice, setRunning, status } from "./messages.js";
import { NUMBERS, newSeed } from "./settings.js";
import { state } from "./state.js";
import { describe, isChanged } from "./views/routing.js";

const WHY = { eos: "the model ended its text", max_tokens: "as many tokens as asked for", context_full: "the context is full", cancelled: "stopped", stop_string: "a stop text was reached" };

/** The run whose tokens arrive: `{ tokens, rows, numPrompt, started, main, isChat, onToken, onParts }`. */
let run;

on("prompt", ({ tokens }) => {
  run.tokens.push(...tokens);
  run.numPrompt = tokens.length;
  if (!run.main) return;
  state.numPrompt = tokens.length;
  resetText();
});

on("token", ({ id, text, parts, routing }) => {
  run.onParts?.(parts);
  run.started ??= performance.now();
  run.tokens.push({ id, text });
  const known = run.rows.length;
  run.rows.push(...routing);
  state.all.rows.push(...routing);
  state.all.tokens.push(...run.tokens.slice(known, run.rows.length));
  run.onToken?.(run);
  if (run.main) showSpeed();
  drawSoon();
});

on("lost", ({ tokens }) => {
  notice(`The GPU device was lost after ${tokens} tokens. The model is being loaded again, and goes on from there.`);
});

function showSpeed() {
  const numNew = run.tokens.length - run.numPrompt;
  const seconds = (performance.now() - run.started) / 1000;
  $("speed").textContent = numNew > 1 ? `${numNew} tokens, ${((numNew - 1) / seconds).toFixed(1)} tokens/s` : "";
}

/** What the fields say, and how the routing is changed. */
function options() {
  const numbers = NUMBERS.map((name) => [name, Number($(name).value)]);
  return { ...Object.fromEntries(numbers), routing: state.routing };
}

/** The answer that the page shows. With `again`, from the same seed as the last. */
export async function generate(prompt, { again = false } = {}) {
  if (state.running) return undefined;
  if (!prompt) {
    notice("Write a prompt first.");
    return undefined;
  }
  if (!again) newSeed();
  return await write({ prompt, options: options() }, { main: true });
}

/** Answers the last of `messages`. `onParts` is called with what each token adds to thinking and answer. */
export async function answer(messages, onParts) {
  if (!state.running) newSeed();
  const { maxTokens, ...rest } = options();
  return await write({ messages, options: rest }, { main: true, onParts });
}

/** An answer for a view of its own: what is shown beside it stays. `changes` to the options. */
export async function writeAside(prompt, changes, onToken) {
  return await write({ prompt, options: { ...options(), ...changes } }, { onToken });
}

/** Its run with what it came to, or nothing after an error. `main`: the page shows it. */
async function write(asked, { main = false, onToken, onParts } = {}) {
  if (state.running || !state.info) return undefined;
  notice("");
  setRunning(true, "Writing …");
  run = { tokens: [], rows: [], numPrompt: 0, main, onToken, onParts, isChat: asked.messages !== undefined };
  if (main) {
    state.answers++;
    Object.assign(state, { tokens: run.tokens, rows: run.rows, numPrompt: 0, made: { ...asked } });
    $("speed").textContent = "";
    resetText();
  }
  try {
    const { ids, text, stop, thinking, answer, header } = await call("generate", asked);
    if (main) state.made.header = header;
    status(`${ids.length} new tokens: ${WHY[stop]}.`);
    return { ...run, text, stop, thinking, answer, header };
  } catch (error) {
    status("");
    complain(error);
    return undefined;
  } finally {
    setRunning(false);
    draw();
  }
}

export function showChanged() {
  const changed = isChanged(state.routing);
  $("changed").hidden = !changed;
  $("changed").textContent = changed ? `This is no longer the model as trained: ${describe(state.routing)}.` : "";
}

let rewriting = false;

/** Writes the answer anew after a change of the routing; of several changes at once, with the last. */
export async function rewrite() {
  showChanged();
  if (rewriting) void call("stop");
  // A conversation goes on from here with the new routing; what was said stays said.
  if (rewriting || state.tokens.length === 0 || state.made?.messages) return;
  rewriting = true;
  try {
    if (state.running) {
      await call("stop");
      await idle();
    }
    let written;
    do {
      written = JSON.stringify(state.routing);
      await generate($("prompt").value, { again: true });
    } while (written !== JSON.stringify(state.routing));
  } finally {
    rewriting = false;
  }
}

/** Resolves when nothing runs. */
export async function idle() {
  while (state.running) await new Promise((resolve) => setTimeout(resolve, 20));
}
