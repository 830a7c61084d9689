// Change how the model routes. What is chosen here goes with every answer, and each change writes the answer anew.

import { paint } from "../colours.js";
import { element, select } from "../dom.js";

export class RoutingView {
  /** `onChange()` is called after every change of `state.routing`. */
  constructor(root, state, onChange) {
    this.root = root;
    this.state = state;
    this.onChange = onChange;
    this.scope = "all";
    this.update();
  }

  /** Built anew for another model or after a reset only: what a person is typing into must stay. */
  update() {
    const { info, routing } = this.state;
    if (!info) {
      this.root.replaceChildren(element("p", { class: "hint" }, "Load a model first."));
      return;
    }
    if (this.shown === info && this.routing === routing) return;
    if (this.shown !== info) this.scope = "all";
    this.shown = info;
    this.routing = routing;
    const { experts, expertsPerToken, moeLayers } = info.model;
    const number = (label, value, limits, set) => {
      const input = element("input", { type: "number", value, ...limits });
      // An input event for every key would answer to half a number.
      input.addEventListener("change", () => {
        if (input.validity.valid && input.value !== "") set(Number(input.value));
        this.changed();
      });
      return element("label", {}, label, input);
    };
    const numbers = element(
      "div",
      { class: "row controls" },
      number("Experts per token", routing.expertsPerToken ?? expertsPerToken, { min: 1, max: experts, step: 1 }, (value) => {
        this.lowered = undefined;
        routing.expertsPerToken = value === expertsPerToken ? undefined : value;
      }),
      number("Router temperature", routing.temperature ?? 1, { min: 0.01, max: 100, step: "any" }, (value) => {
        routing.temperature = value === 1 ? undefined : value;
      }),
    );
    this.count = numbers.querySelector("input");
    this.said = element("p", { class: "hint", role: "status" });
    const everyExpert = Array.from({ length: experts }, (_, expert) => [expert, `expert ${expert}`]);
    const force = select("Send every token to", [["", "the experts that its router likes"], ...everyExpert], routing.forced?.expert ?? "", (value) => {
      routing.forced = value === "" ? undefined : { expert: Number(value) };
      this.changed();
    });
    const scopes = [["all", "every layer"], ...moeLayers.map((layer) => [layer, `layer ${layer}`])];
    const scope = select("Experts that are switched on in", scopes, this.scope, (value) => {
      this.scope = value;
      this.showSwitches();
    });
    this.switches = element("div", { class: "switches", role: "group", "aria-label": "Experts" });
    this.reset = element("button", { type: "button", onclick: () => this.undo() }, "As trained");
    this.root.replaceChildren(
      element("p", { class: "hint" }, "Every change writes the answer anew. Changed, it is no longer the model as trained."),
      numbers,
      element("div", { class: "row bar" }, force),
      element("div", { class: "row bar" }, scope),
      this.switches,
      this.said,
      element("div", { class: "row bar" }, this.reset),
    );
    this.showSwitches();
  }

  showSwitches() {
    const { info, routing } = this.state;
    const { experts } = info.model;
    this.switches.replaceChildren(
      ...Array.from({ length: experts }, (_, expert) => {
        const everywhere = routing.disabled.some(isSame({ expert }));
        const switched = this.scope === "all" ? { expert } : { expert, layer: Number(this.scope) };
        const off = everywhere || routing.disabled.some(isSame(switched));
        const last = !off && this.isLast(switched);
        const locked = (everywhere && this.scope !== "all") || last;
        return element(
          "button",
          {
            type: "button",
            class: off ? "token off" : "token",
            style: paint(expert),
            "aria-pressed": String(!off),
            "aria-label": `expert ${expert}`,
            disabled: locked,
            title: last ? "the last one that is on" : locked ? "switched off in every layer" : off ? "switch on" : "switch off",
            onclick: () => {
              routing.disabled = off ? routing.disabled.filter((other) => !isSame(switched)(other)) : [...routing.disabled, switched];
              this.changed();
              this.showSwitches();
              this.switches.children[expert].focus();
            },
          },
          String(expert),
        );
      }),
    );
    this.reset.disabled = !isChanged(routing);
  }

  /** Experts that are left in the layer that has fewest. */
  left() {
    const { experts, moeLayers } = this.state.info.model;
    const { disabled } = this.state.routing;
    const off = (layer) => new Set(disabled.filter((other) => other.layer === undefined || other.layer === layer).map(({ expert }) => expert));
    const left = moeLayers.map((layer) => experts - off(layer).size);
    return left.map((count, index) => ({ count, layer: moeLayers[index] })).reduce((fewest, next) => (next.count < fewest.count ? next : fewest));
  }

  /** Whether a layer would have no expert left without this one. */
  isLast(expert) {
    const { routing } = this.state;
    const { disabled } = routing;
    routing.disabled = [...disabled, expert];
    const { count } = this.left();
    routing.disabled = disabled;
    return count === 0;
  }

  /** No token can go to more experts than are left: then it goes to fewer, until there are enough again. */
  fit() {
    const { routing, info } = this.state;
    const wanted = this.lowered ?? routing.expertsPerToken ?? info.model.expertsPerToken;
    const { count, layer } = this.left();
    const per = Math.max(1, Math.min(wanted, count));
    this.lowered = per < wanted ? wanted : undefined;
    routing.expertsPerToken = per === info.model.expertsPerToken ? undefined : per;
    this.count.value = per;
    const some = (number) => `${number} expert${number === 1 ? "" : "s"}`;
    this.said.textContent = this.lowered ? `Only ${some(count)} of layer ${layer} ${count === 1 ? "is" : "are"} left, so every token goes to ${some(per)} instead of ${wanted}.` : "";
  }

  undo() {
    this.lowered = undefined;
    this.state.routing = asTrained();
    this.update();
    this.onChange();
  }

  changed() {
    this.fit();
    this.reset.disabled = !isChanged(this.state.routing);
    this.onChange();
  }
}

const isSame = (one) => (other) => one.expert === other.expert && one.layer === other.layer;

export const asTrained = () => ({ disabled: [] });

export function isChanged({ expertsPerToken, disabled, forced, temperature }) {
  return disabled.length > 0 || [expertsPerToken, forced, temperature].some((value) => value !== undefined);
}

const byPlace = (a, b) => (a.layer ?? -1) - (b.layer ?? -1) || a.expert - b.expert;

const inWords = ({ expert, layer }) => (layer === undefined ? String(expert) : `${expert} of layer ${layer}`);

/** For a person: "1 expert per token; without experts 3, 7 of layer 5". */
export function describe({ expertsPerToken, disabled, forced, temperature }) {
  return [
    expertsPerToken && `${expertsPerToken} expert${expertsPerToken === 1 ? "" : "s"} per token`,
    disabled.length > 0 && `without expert${disabled.length === 1 ? "" : "s"} ${[...disabled].sort(byPlace).map(inWords).join(", ")}`,
    forced !== undefined && `always expert ${inWords(forced)}`,
    temperature !== undefined && `router temperature ${temperature}`,
  ]
    .filter(Boolean)
    .join("; ");
}
