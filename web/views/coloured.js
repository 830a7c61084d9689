// A text as coloured spans, for the views that have answers of their own.

import { paint } from "../colours.js";
import { element } from "../dom.js";

/** Shows `{ tokens, rows, numPrompt }` in `node`, by the top expert of `layer`: its place among the layers with a router. */
export function showColoured(node, { tokens, rows, numPrompt }, layer) {
  const spans = tokens.map(({ text }, index) => {
    const expert = rows[index]?.experts[layer][0];
    const kind = index < numPrompt ? "token prompt" : "token";
    if (expert === undefined) return element("span", { class: `${kind} unknown` }, text);
    return element("span", { class: kind, style: paint(expert), data: { expert } }, text);
  });
  node.replaceChildren(...spans);
}
