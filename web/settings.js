// What the page remembers from visit to visit, in this browser only: the theme, and what a person set. A private window remembers nothing.

import { $ } from "./dom.js";

const KEY = "moebius";
export const NUMBERS = ["maxTokens", "temperature", "topK", "topP", "minP", "repeatPenalty", "seed"];

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
  } catch {
    return {};
  }
}

const kept = read();

export const remembered = (name) => kept[name];

export function remember(name, value) {
  kept[name] = value;
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // Without storage it holds until the page is closed.
  }
}

/** Numbers that were set before, and from now on those that are. */
export function rememberFields() {
  for (const name of [...NUMBERS, "fixed", "device", "pace"]) {
    const field = $(name);
    const property = field.type === "checkbox" ? "checked" : "value";
    const value = kept.fields?.[name];
    if (value !== undefined) field[property] = value;
    field.addEventListener("change", () => remember("fields", { ...kept.fields, [name]: field[property] }));
  }
}

/** What the makers of the model suggest; on the first load only where nobody set anything. */
export function suggest(suggested, first) {
  for (const [name, value] of Object.entries(suggested)) {
    if (NUMBERS.includes(name) && !(first && kept.fields?.[name] !== undefined)) $(name).value = Math.round(value * 1e4) / 1e4;
  }
}

/** A seed of its own for every answer, unless it is fixed. */
export function newSeed() {
  if (!$("fixed").checked) $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

export function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

export function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  showTheme(now === "dark" ? "light" : "dark");
  remember("theme", document.documentElement.dataset.theme);
}
