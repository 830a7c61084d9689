// Lets the model write: one answer, or the same answer anew after its routing was changed.

import { call, on } from "./client.js";
import { $ } from "./dom.js";
import { draw, drawSoon, resetText } from "./draw.js";
import { complain, notice, setRunning, status } from "./messages.js";
import { state } from "./state.js";
import { describe, isChanged } from "./views/routing.js";

const NUMBERS = ["maxTokens", "temperature", "topK", "topP", "minP", "repeatPenalty", "seed"];

/** The run whose tokens arrive: `{ tokens, rows, numPrompt, started }`. */
let run;

on("prompt", ({ tokens }) => {
  run.tokens.push(...tokens);
  run.numPrompt = tokens.length;
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
  const numNew = run.tokens.length - run.numPrompt;
  const seconds = (performance.now() - run.started) / 1000;
  $("speed").textContent = numNew > 1 ? `${numNew} tokens, ${((numNew - 1) / seconds).toFixed(1)} tokens/s` : "";
  drawSoon();
});

on("lost", ({ tokens }) => {
  notice(`The GPU device was lost after ${tokens} tokens. The model is being loaded again, and goes on from there.`);
});

function options() {
  const numbers = NUMBERS.map((name) => [name, Number($(name).value)]);
  return { ...Object.fromEntries(numbers), routing: state.routing };
}

/** Writes on after a prompt, into what the page shows. `{ tokens, rows, text, stop }`, or nothing after an error. */
export async function generate(prompt) {
  if (!prompt) {
    notice("Write a prompt first.");
    return undefined;
  }
  return await write({ prompt, options: options() });
}

/** Answers the last of `messages`. `onParts` is called with what each token adds to thinking and answer. */
export async function answer(messages, onParts) {
  const { maxTokens, ...rest } = options();
  return await write({ messages, options: rest }, onParts);
}

async function write(asked, onParts) {
  if (state.running || !state.info) return undefined;
  notice("");
  setRunning(true, "Writing …");
  state.answers++;
  run = { tokens: [], rows: [], numPrompt: 0, onParts, isChat: asked.messages !== undefined };
  Object.assign(state, { tokens: run.tokens, rows: run.rows, numPrompt: 0 });
  $("speed").textContent = "";
  resetText();
  try {
    const summary = await call("generate", asked);
    const why = { eos: "the model ended its text", max_tokens: "as many tokens as asked for", context_full: "the context is full", cancelled: "stopped", stop_string: "a stop text was reached" };
    status(`${summary.ids.length} new tokens: ${why[summary.stop]}.`);
    const { text, stop, thinking, answer } = summary;
    return { ...run, text, stop, thinking, answer };
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
  if (rewriting || state.tokens.length === 0 || run?.isChat) return;
  rewriting = true;
  try {
    if (state.running) {
      await call("stop");
      await idle();
    }
    let written;
    do {
      written = JSON.stringify(state.routing);
      await generate($("prompt").value);
    } while (written !== JSON.stringify(state.routing));
  } finally {
    rewriting = false;
  }
}

/** Resolves when nothing runs. */
export async function idle() {
  while (state.running) await new Promise((resolve) => setTimeout(resolve, 20));
}
