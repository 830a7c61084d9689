// Words that are explained where they occur: a button with `data-term`, whose explanation shows on hover, focus and touch.

import { element } from "./dom.js";

export const TERMS = {
  token: "A piece of text that the model reads and writes as one: a word, part of a word, or a sign.",
  expert: "A small network inside a layer. Each has learned on other text; a token runs through only a few of them.",
  router: "The part of a layer that scores all its experts for a token, and sends it to the best of them.",
  layer: "One of the steps that a token goes through. Most have experts and a router of their own, so expert 7 of one layer is not expert 7 of another.",
  load: "How many of a layer's assignments of tokens went to an expert.",
  entropy: "How evenly the experts of a layer are used: 1 if all get the same, 0 if one gets everything.",
  CV: "Coefficient of variation: how far the loads lie from their mean, as a share of it. 0 if all get the same.",
  temperature: "How daring the choice of the next token is. 0 always takes the likeliest.",
  seed: "The number that chance starts from. The same seed writes the same text.",
  prompt: "The text that the model continues. It is underlined in the answer.",
  WebGPU: "The way for pages to compute on a graphics card.",
  reference: "The same computations in plain code on the processor. It needs no graphics card.",
};

const MARGIN = 8;
let tip;
let shownFor;

function show(button) {
  tip ??= document.body.appendChild(element("div", { class: "tip", id: "tip", role: "tooltip" }));
  shownFor = button;
  tip.textContent = TERMS[button.dataset.term];
  tip.hidden = false;
  button.setAttribute("aria-describedby", "tip");
  const place = button.getBoundingClientRect();
  const left = Math.max(MARGIN, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - MARGIN));
  const below = place.bottom + tip.offsetHeight + MARGIN < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? place.bottom + 2 : place.top - tip.offsetHeight - 2}px`;
}

function hide() {
  if (!shownFor) return;
  shownFor.removeAttribute("aria-describedby");
  shownFor = undefined;
  tip.hidden = true;
}

/** A word with its explanation. */
export const term = (name, text = name) => element("button", { type: "button", class: "term", data: { term: name } }, text);

export function explainTerms(root) {
  const of = (target) => target.closest?.("[data-term]");
  const enter = (event) => of(event.target) && show(of(event.target));
  root.addEventListener("pointerover", (event) => {
    if (of(event.target)) show(of(event.target));
    // The explanation stays while the pointer is on it, so that it can be read with a magnifier.
    else if (shownFor && !event.target.closest?.(".tip") && shownFor !== document.activeElement) hide();
  });
  root.addEventListener("focusin", enter);
  root.addEventListener("click", enter);
  root.addEventListener("focusout", hide);
  root.addEventListener("scroll", hide, true);
  root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
