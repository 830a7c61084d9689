// Which experts a token goes to, and which tokens an expert gets, over everything since the model was loaded.

import { paint } from "../colours.js";
import { element, percent, select, visible } from "../dom.js";
import { preferencesOfToken, topTokens } from "../stats.js";

const MAX_TOKENS = 30;

export class PreferencesView {
  constructor(root, state) {
    this.state = state;
    this.wanted = "";
    this.layer = 0;
    this.expert = 0;
    const input = element("input", { type: "text", placeholder: "the", spellcheck: "false", autocomplete: "off", size: "12" });
    input.addEventListener("input", () => {
      this.wanted = input.value.trim();
      this.updateToken();
    });
    this.token = element("div");
    this.bar = element("div", { class: "row bar" });
    this.list = element("div");
    root.replaceChildren(
      element("h3", {}, "Where a token goes"),
      element("div", { class: "row bar" }, element("label", {}, "Token ", input)),
      this.token,
      element("h3", {}, "What an expert gets"),
      this.bar,
      this.list,
    );
    this.update();
  }

  update() {
    const { info } = this.state;
    if (info) {
      const { moeLayers, experts } = info.model;
      const pick = (name) => (value) => {
        this[name] = Number(value);
        this.updateExpert();
      };
      // Replaced only for another model, so that an open list stays open while tokens stream.
      if (this.shown !== info) {
        this.shown = info;
        this.bar.replaceChildren(
          select("In", moeLayers.map((layer, index) => [index, `layer ${layer}`]), this.layer, pick("layer")),
          select("What gets", Array.from({ length: experts }, (_, expert) => [expert, `expert ${expert}`]), this.expert, pick("expert")),
        );
      }
    }
    this.updateToken();
    this.updateExpert();
  }

  updateToken() {
    const { info, all } = this.state;
    if (!info || !this.wanted) {
      this.token.replaceChildren(element("p", { class: "hint" }, "Type a token that has occurred, such as : or what."));
      return;
    }
    const { moeLayers, experts } = info.model;
    const found = preferencesOfToken(all.tokens, all.rows, this.wanted, moeLayers.length, experts);
    if (found.count === 0) {
      this.token.replaceChildren(element("p", { class: "hint" }, `No token “${this.wanted}” so far.`));
      return;
    }
    const lines = found.layers.map((shares, layer) => {
      const order = shares.map((share, expert) => ({ share, expert })).filter(({ share }) => share > 0);
      order.sort((a, b) => b.share - a.share);
      const chips = order.slice(0, 6).map(({ share, expert }) => chip(expert, share));
      return element("li", {}, element("span", {}, `layer ${moeLayers[layer]}`), ...chips);
    });
    this.token.replaceChildren(element("p", { class: "hint" }, `It occurred ${found.count} times.`), element("ol", { class: "layers" }, ...lines));
  }

  updateExpert() {
    const { info, all } = this.state;
    if (!info || all.rows.length === 0) {
      this.list.replaceChildren(element("p", { class: "hint" }, "Generate something first."));
      return;
    }
    const top = topTokens(all.tokens.slice(0, all.rows.length), all.rows, this.layer, this.expert).slice(0, MAX_TOKENS);
    const items = top.map(({ text, count, total }) =>
      element("li", { title: `chosen for ${count} of ${total}` }, element("code", {}, visible(text)), ` ${count}/${total}`),
    );
    this.list.replaceChildren(element("ol", { class: "tokens" }, ...items));
  }
}

function chip(expert, share) {
  return element("span", { class: "token chip", style: paint(expert) }, `${expert} · ${percent(share)}`);
}
