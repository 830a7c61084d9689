// Two prompts, and where their experts differ most.

import { paint } from "../colours.js";
import { element, percent } from "../dom.js";
import { distance, loads, shares } from "../stats.js";
import { describe, isChanged } from "./routing.js";

const DEFAULTS = ["The court held that the defendant was liable for", "def main(argv):\n    for name in argv:\n        print("];

export class CompareView {
  /** `generate(prompt, onToken)` resolves to `{ tokens, rows, text }`, or to nothing if it was stopped. */
  constructor(root, state, generate) {
    this.state = state;
    this.generate = generate;
    this.prompts = DEFAULTS.map((text, index) =>
      element("textarea", { rows: "3", spellcheck: "false", "aria-label": `Prompt ${"AB"[index]}` }, text),
    );
    this.answers = DEFAULTS.map(() => element("div", { class: "text small" }));
    this.button = element("button", { type: "button", onclick: () => this.run() }, "Compare");
    this.changed = element("p", { class: "notice" });
    this.result = element("div", { class: "scroll" });
    const columns = this.prompts.map((prompt, index) => element("div", {}, element("h3", {}, `${"AB"[index]}`), prompt, this.answers[index]));
    root.replaceChildren(element("div", { class: "columns" }, ...columns), element("div", { class: "row bar" }, this.button), this.changed, this.result);
    this.update();
  }

  update() {
    this.button.disabled = !this.state.info || this.state.running;
    const { routing } = this.state;
    this.changed.hidden = !isChanged(routing);
    this.changed.textContent = isChanged(routing) ? `Both are written with the changed routing: ${describe(routing)}.` : "";
  }

  async run() {
    const runs = [];
    for (const [index, prompt] of this.prompts.entries()) {
      const run = await this.generate(prompt.value, ({ tokens, numPrompt }) => {
        this.answers[index].textContent = tokens.slice(numPrompt).map(({ text }) => text).join("");
      });
      if (!run) return;
      this.answers[index].textContent = run.text;
      runs.push(run);
    }
    this.show(runs);
  }

  show(runs) {
    const { moeLayers, experts } = this.state.info.model;
    const [a, b] = runs.map(({ rows }) => loads(rows, moeLayers.length, experts).map(shares));
    const order = a.map((_, layer) => ({ layer, distance: distance(a[layer], b[layer]) })).sort((x, y) => y.distance - x.distance);
    const lines = order.map(({ layer, distance }) => {
      const cells = a[layer].map((share, expert) => {
        const bar = (value, name) =>
          element("span", { class: "half", style: { "--share": value, ...paint(expert) }, title: `${name}: ${percent(value)}` });
        return element("td", { class: "pair" }, bar(share, "A"), bar(b[layer][expert], "B"));
      });
      return element("tr", {}, element("th", { scope: "row" }, String(moeLayers[layer])), ...cells, element("td", { class: "stat" }, percent(distance)));
    });
    const head = Array.from({ length: experts }, (_, expert) => element("th", { scope: "col" }, String(expert)));
    this.result.replaceChildren(
      element(
        "table",
        { class: "heatmap" },
        element("caption", {}, "Shares of A (left bar) and B (right bar); the layer that differs most comes first"),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "layer"), ...head, element("th", { class: "stat", scope: "col" }, "differ"))),
        element("tbody", {}, ...lines),
      ),
      element("p", { class: "hint" }, "Differ: the share of assignments that would have to move to make the two equal."),
    );
  }
}
