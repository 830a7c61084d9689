// The likeliest next tokens of each position of the shown answer. They are computed when somebody asks, once for an answer.

import { call } from "./client.js";
import { state } from "./state.js";

const COUNT = 5;

/** `[position][rank]` of the shown answer, `undefined` while something runs or another answer is shown by then. */
export async function likeliest() {
  const { made, tokens, running } = state;
  if (running || !made?.header) return undefined;
  made.likeliest ??= call("likeliest", { ids: tokens.map(({ id }) => id), count: COUNT, routing: made.options.routing });
  try {
    const found = await made.likeliest;
    return made === state.made ? found : undefined;
  } catch {
    // Asked again at the next token that is pointed at.
    made.likeliest = undefined;
    return undefined;
  }
}
