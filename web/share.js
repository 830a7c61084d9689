// What one takes along of an answer: its text, a link, its trace, a picture.

import { colourOf, inkOn } from "./colours.js";
import { element, save } from "./dom.js";
import { linkTo } from "./link.js";
import { loadedModel } from "./loading.js";
import { status } from "./messages.js";
import { state } from "./state.js";

const answerText = () => state.tokens.map(({ text }) => text).join("");

/** The lines of `moebius trace`: one about the model, then one per token and layer. */
export function traceOf({ tokens, rows, made }, moeLayers) {
  const lines = rows.flatMap(({ experts, weights }, position) =>
    moeLayers.map((layer, index) => {
      const { id, text } = tokens[position];
      return JSON.stringify({ domain: "prompt", position, token: id, text, layer, experts: experts[index], weights: weights[index] });
    }),
  );
  return `${[made.header, ...lines].join("\n")}\n`;
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    status(`${what} copied.`);
  } catch {
    status(`This browser does not let the page copy. ${what}: ${text}`);
  }
}

function copyLink() {
  const link = linkTo(loadedModel);
  if (!link) status("A conversation, or a model on this machine, cannot be linked to.");
  else void copy(link, "Link");
}

const WIDTH = 1200;
const EDGE = 40;
const LINE = 44;

/** Where each token goes, in lines that break between tokens and where the text does. */
function place(context) {
  const places = [];
  let [left, line] = [EDGE, 0];
  state.tokens.forEach(({ text }, index) => {
    text.split("\n").forEach((part, number) => {
      const width = context.measureText(part).width;
      if (number > 0 || (left + width > WIDTH - EDGE && left > EDGE)) [left, line] = [EDGE, line + 1];
      if (part) places.push({ part, index, left, line, width });
      left += width;
    });
  });
  return { places, lines: line + 1 };
}

/** The coloured text as a picture, with the colours named below. */
async function picture() {
  const canvas = element("canvas");
  const context = canvas.getContext("2d");
  const font = '26px system-ui, "DejaVu Sans", sans-serif';
  context.font = font;
  const { places, lines } = place(context);
  const { moeLayers, experts } = state.info.model;
  Object.assign(canvas, { width: WIDTH, height: 2 * EDGE + LINE * (lines + 2) });
  const style = getComputedStyle(document.body);
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.textBaseline = "middle";
  context.font = font;
  const box = (text, left, line, width, expert) => {
    const middle = EDGE + LINE * (line + 0.5);
    if (expert !== undefined) {
      context.fillStyle = colourOf(expert);
      context.fillRect(left, middle - 18, width - 1, 36);
    }
    context.fillStyle = expert === undefined ? style.color : inkOn(colourOf(expert));
    context.fillText(text, left, middle);
  };
  for (const { part, index, left, line, width } of places) box(part, left, line, width, state.rows[index]?.experts[state.layer][0]);
  context.font = font.replace("26px", "20px");
  const title = `Moebius, layer ${moeLayers[state.layer]}, experts:`;
  box(title, EDGE, lines + 1, 0);
  let left = EDGE + context.measureText(title).width + 12;
  for (let expert = 0; expert < experts && left < WIDTH - EDGE; expert++) {
    const width = context.measureText(String(expert)).width;
    box(String(expert), left, lines + 1, width, expert);
    left += width + 8;
  }
  save(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), "moebius.png");
}

const ACTIONS = [
  ["Copy the text", () => copy(answerText(), "Text")],
  ["Copy a link", copyLink],
  ["Save the trace", () => save(new Blob([traceOf(state, state.info.model.moeLayers)], { type: "application/jsonl" }), "moebius.jsonl")],
  ["Save a picture", picture],
];

/** Buttons for a finished answer. */
export const shareButtons = () => ACTIONS.map(([name, act]) => element("button", { type: "button", onclick: () => void act() }, name));
