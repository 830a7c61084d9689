// A link that restores what is shown: model, prompt, settings and routing, behind the `#` of the address, so that no server sees it.

import { $ } from "./dom.js";
import { NUMBERS } from "./settings.js";
import { state } from "./state.js";
import { asTrained } from "./views/routing.js";

const number = (text) => (text !== null && text !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined);

/** `3`, or `3@5` for layer 5 only, as the command line writes experts. */
const nameOf = ({ expert, layer }) => (layer === undefined ? String(expert) : `${expert}@${layer}`);

function expertAt(name) {
  const [, expert, layer] = /^(\d+)(?:@(\d+))?$/.exec(name) ?? [];
  if (expert === undefined) return undefined;
  return layer === undefined ? { expert: Number(expert) } : { expert: Number(expert), layer: Number(layer) };
}

/** What the address asks for. Unknown names and values that are no numbers are left aside. */
function parse(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const routing = { ...asTrained(), disabled: (asked.get("off") ?? "").split(",").map(expertAt).filter((expert) => expert !== undefined) };
  const experts = number(asked.get("experts"));
  const temperature = number(asked.get("routerTemperature"));
  const forced = asked.get("force");
  if (experts !== undefined) routing.expertsPerToken = experts;
  if (temperature !== undefined) routing.temperature = temperature;
  if (forced !== null && expertAt(forced)) routing.forced = expertAt(forced);
  return { asked, routing };
}

/** Fills in the page before the model is loaded. `{ write, routing, layer }`: what remains to be done afterwards. */
export function follow(hash) {
  const { asked, routing } = parse(hash);
  const kind = ["hub", "url"].find((kind) => asked.has(kind));
  if (kind) {
    $("model-kind").value = kind;
    $("model-name").value = asked.get(kind);
  }
  if (["auto", "gpu", "cpu"].includes(asked.get("device"))) $("device").value = asked.get("device");
  if (asked.has("prompt")) $("prompt").value = asked.get("prompt");
  const settings = Object.fromEntries(NUMBERS.map((name) => [name, number(asked.get(name))]).filter(([, value]) => value !== undefined));
  if (settings.seed !== undefined) $("fixed").checked = true;
  return { write: asked.get("write") !== "no", routing, layer: number(asked.get("layer")), settings };
}

/** The address of what is shown. `undefined` where the model lies on this machine, or a conversation is shown. */
export function linkTo({ kind, id, url }) {
  if (["folder", "file"].includes(kind) || state.made.prompt === undefined) return undefined;
  const { prompt, options } = state.made;
  const wanted = new URLSearchParams();
  if (kind !== "bundled") wanted.set(kind, id ?? url);
  wanted.set("prompt", prompt);
  for (const name of NUMBERS) wanted.set(name, options[name]);
  const { disabled, expertsPerToken, forced, temperature } = options.routing;
  if (disabled.length > 0) wanted.set("off", disabled.map(nameOf).join(","));
  if (expertsPerToken !== undefined) wanted.set("experts", expertsPerToken);
  if (forced !== undefined) wanted.set("force", nameOf(forced));
  if (temperature !== undefined) wanted.set("routerTemperature", temperature);
  wanted.set("layer", state.layer);
  return `${location.href.split("#")[0]}#${wanted}`;
}
