// The prompt and the answer, each token in the colour of its top expert in the chosen layer; one token's experts in every layer below.

import { paint } from "../colours.js";
import { element, percent, select, visible } from "../dom.js";
import { likeliest } from "../likeliest.js";
import { shareButtons } from "../share.js";

export class TextView {
  constructor(root, state) {
    this.root = root;
    this.state = state;
    this.selected = undefined;
    this.text = element("div", {
      class: "text",
      tabindex: "0",
      role: "textbox",
      "aria-readonly": "true",
      "aria-multiline": "true",
      "aria-label": "Prompt and answer; the arrow keys go from token to token",
      onkeydown: (event) => this.step(event),
      // Not pointerover: a text that grows under a pointer at rest must not choose its tokens.
      onpointermove: (event) => this.choose(event.target),
      onclick: (event) => this.choose(event.target),
    });
    this.bar = element("div", { class: "row bar" });
    this.detail = element("div", { class: "detail", "aria-live": "polite" });
    this.share = element("div", { class: "row bar share", role: "group", "aria-label": "Take it along" }, ...shareButtons());
    root.replaceChildren(this.bar, this.text, this.detail, this.share);
    // On a phone the details lie over the page: what is pressed beside them wants to be seen.
    document.addEventListener("click", ({ target }) => {
      if (getComputedStyle(this.detail).position === "fixed" && !this.text.contains(target) && !this.detail.contains(target)) this.close();
    });
    this.reset();
  }

  /** Another model or another answer. */
  reset() {
    this.selected = undefined;
    this.text.replaceChildren();
    const { info } = this.state;
    this.root.hidden = !info || this.state.tokens.length === 0;
    if (info && this.shown !== info) this.showBar(info.model);
    this.close();
    this.update();
  }

  showBar({ moeLayers, experts }) {
    this.shown = this.state.info;
    const options = moeLayers.map((layer, index) => [index, `layer ${layer}`]);
    const legend = element("span", { class: "legend", role: "img", "aria-label": `The colours of experts 0 to ${experts - 1}` });
    for (let expert = 0; expert < experts; expert++) legend.append(element("span", { class: "token", style: paint(expert) }, String(expert)));
    const layer = select("Coloured by the top expert of", options, this.state.layer, (value) => {
      this.state.layer = Number(value);
      this.update();
    });
    const numbers = element("input", { type: "checkbox", id: "numbers" });
    numbers.checked = this.root.classList.contains("numbered");
    numbers.addEventListener("change", () => this.root.classList.toggle("numbered", numbers.checked));
    this.layers = layer.querySelector("select");
    this.bar.replaceChildren(layer, legend, element("label", { class: "check" }, numbers, " numbers"));
  }

  update() {
    const { tokens, rows, numPrompt, info, layer } = this.state;
    this.root.hidden = !info || tokens.length === 0;
    if (this.layers) this.layers.value = layer;
    for (let index = 0; index < tokens.length; index++) {
      const span = this.text.children[index] ?? this.text.appendChild(element("span", { data: { index } }, tokens[index].text));
      const expert = rows[index]?.experts[layer][0];
      span.className = index < numPrompt ? "token prompt" : "token";
      if (expert === undefined) {
        span.classList.add("unknown");
      } else if (span.dataset.expert !== String(expert)) {
        for (const [name, value] of Object.entries(paint(expert))) span.style.setProperty(name, value);
        span.dataset.expert = expert;
      }
    }
    this.share.hidden = !this.state.made?.header;
    if (this.selected !== undefined) this.show(this.selected);
  }

  close() {
    this.text.children[this.selected]?.classList.remove("selected");
    this.selected = undefined;
    this.detail.classList.remove("open");
    this.detail.replaceChildren(element("p", { class: "hint" }, "Point at a token, or tap it, to see its experts in every layer and what could come next."));
  }

  choose(target) {
    const index = target.dataset?.index;
    if (index !== undefined && Number(index) !== this.selected) this.show(Number(index));
  }

  step(event) {
    const last = this.state.tokens.length - 1;
    const at = this.selected ?? -1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.show(Math.min(Math.max(to, 0), last));
    this.text.children[this.selected]?.scrollIntoView({ block: "nearest" });
  }

  show(index) {
    this.text.children[this.selected]?.classList.remove("selected");
    this.selected = index;
    this.text.children[index]?.classList.add("selected");
    this.detail.classList.add("open");
    const { tokens, rows, info } = this.state;
    const close = element("button", { type: "button", class: "close", "aria-label": "Close the details", onclick: () => this.close() }, "×");
    const head = element("div", { class: "head" }, element("h3", {}, "Token ", String(index), " ", element("code", {}, visible(tokens[index].text))), close);
    const row = rows[index];
    if (!row) {
      const why = "The newest token has not been through the model yet.";
      this.detail.replaceChildren(head, element("p", { class: "hint" }, why));
      return;
    }
    const lines = row.experts.map((experts, layer) => {
      const chips = experts.map((expert, rank) => element("span", { class: "token chip", style: paint(expert) }, `${expert} · ${percent(row.weights[layer][rank])}`));
      return element("li", { class: layer === this.state.layer ? "current" : undefined }, element("span", {}, `layer ${info.model.moeLayers[layer]}`), ...chips);
    });
    const next = element("ol", { class: "next" });
    this.detail.replaceChildren(head, element("div", { class: "columns" }, element("ol", { class: "layers" }, ...lines), element("div", {}, element("h4", {}, "What could come next"), next)));
    void this.showNext(next, index);
  }

  /** Fills in the likeliest tokens after the one at `index`, once they are known. */
  async showNext(list, index) {
    const { running, tokens } = this.state;
    list.replaceChildren(element("li", { class: "hint" }, running ? "known when the answer is written" : "…"));
    const found = await likeliest();
    if (!found || this.selected !== index) return;
    const came = tokens[index + 1]?.id;
    const items = found[index].map(({ id, text, probability }) =>
      element(
        "li",
        { class: id === came ? "came" : undefined, title: id === came ? "this one came" : undefined },
        element("code", {}, visible(text)),
        element("span", { class: "likely", style: { "--share": probability } }),
        element("span", {}, `${(probability * 100).toFixed(1)} %`),
      ),
    );
    list.replaceChildren(...items);
  }
}
