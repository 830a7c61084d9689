// Load per layer and expert, and how even it is.

import { element, percent, select } from "../dom.js";
import { loads, shares } from "../stats.js";

const SCOPES = [
  ["answer", "this answer, prompt included"],
  ["last", "the last token"],
  ["start", "everything since the model was loaded"],
];

export class HeatmapView {
  /** `balances(counts)` resolves to the balance of each layer. */
  constructor(root, state, balances) {
    this.state = state;
    this.balances = balances;
    this.scope = "answer";
    this.bar = element("div", { class: "row bar" });
    this.table = element("div", { class: "scroll" });
    root.replaceChildren(this.bar, this.table);
    this.bar.append(
      select("Assignments of", SCOPES, this.scope, (value) => {
        this.scope = value;
        this.update();
      }),
    );
    this.update();
  }

  rows() {
    const { rows, all } = this.state;
    return { answer: rows, last: rows.slice(-1), start: all.rows }[this.scope];
  }

  update() {
    const { info } = this.state;
    const rows = this.rows();
    if (!info || rows.length === 0) {
      this.table.replaceChildren(element("p", { class: "hint" }, "Generate something: every token fills this in."));
      return;
    }
    const { moeLayers, experts } = info.model;
    const counts = loads(rows, moeLayers.length, experts);
    const head = element(
      "tr",
      {},
      element("th", { scope: "col" }, "layer"),
      ...Array.from({ length: experts }, (_, expert) => element("th", { scope: "col" }, String(expert))),
      ...["max/min", "CV", "entropy", "dead"].map((name) => element("th", { scope: "col", class: "stat" }, name)),
    );
    const body = counts.map((layer, index) => this.line(layer, moeLayers[index], this.known?.[index]));
    void this.measure(counts, body);
    const caption = element("caption", {}, `${rows.length} tokens; each cell is the share of its layer's assignments`);
    this.table.replaceChildren(
      element("table", { class: "heatmap" }, caption, element("thead", {}, head), element("tbody", {}, ...body)),
      element(
        "p",
        { class: "hint" },
        "max/min: busiest over idlest expert. CV: standard deviation over mean. Entropy: 1 for equal loads, 0 for a single expert. Dead: experts that got nothing.",
      ),
    );
  }

  /** Fills in how even the loads are, unless there are newer ones by then. */
  async measure(counts, body) {
    this.body = body;
    const known = await this.balances(counts);
    if (this.body !== body) return;
    this.known = known;
    body.forEach((line, layer) => describe(known[layer]).forEach((text, index) => (line.querySelectorAll(".stat")[index].textContent = text)));
  }

  line(counts, layer, known) {
    const parts = shares(counts);
    const top = Math.max(...parts);
    const cells = parts.map((share, expert) =>
      element(
        "td",
        {
          class: "cell",
          style: { "--fill": top > 0 ? share / top : 0 },
          title: `layer ${layer}, expert ${expert}: ${counts[expert]} assignments`,
          data: { count: counts[expert] },
        },
        percent(share).replace(" %", ""),
      ),
    );
    const stats = known ? describe(known) : ["", "", "", ""];
    return element("tr", {}, element("th", { scope: "row" }, String(layer)), ...cells, ...stats.map((text) => element("td", { class: "stat" }, text)));
  }
}

const describe = ({ ratio, variation, entropy, dead }) => [ratio === null ? "∞" : ratio.toFixed(1), variation.toFixed(2), entropy.toFixed(2), String(dead)];
