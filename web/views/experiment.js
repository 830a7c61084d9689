// A guided experiment: switch off the expert that code goes to, and see what becomes of code and of a story. Nothing in it is known
// beforehand: which expert it is, and what becomes of the texts, is what this model does now.

import { paint } from "../colours.js";
import { element, percent } from "../dom.js";
import { loads, shares } from "../stats.js";
import { showColoured } from "./coloured.js";

const CODE = "    def __init__(self, name):\n        self.";
const STORY = "Once upon a time there was a king who";
/** Always the likeliest token, so that only the routing makes a difference; the penalty keeps it from going round in circles. */
const SETTINGS = { maxTokens: 40, temperature: 0, repeatPenalty: 1.1, topK: 0, topP: 1, minP: 0 };

export class ExperimentView {
  /** `write(prompt, changes, onToken)` as `writeAside`. */
  constructor(root, state, write) {
    this.root = root;
    this.state = state;
    this.write = write;
    this.update();
  }

  /** Begun anew with another model. */
  update() {
    const { info, running } = this.state;
    if (!info) {
      this.root.replaceChildren(element("p", { class: "hint" }, "Load a model first."));
      return;
    }
    if (this.shown !== info) this.build(info.model);
    this.steps.forEach(({ button, ready }) => (button.disabled = running || !ready()));
  }

  build({ moeLayers, experts, expertsPerToken }) {
    this.shown = this.state.info;
    this.layer = moeLayers.length - 1;
    this.found = {};
    const last = moeLayers[this.layer];
    this.even = 1 / experts;
    this.steps = [
      this.step({
        title: "Where does code go?",
        expect: `In the last layer, ${last}, each of ${experts} experts would get ${percent(this.even)} if all were used alike. Expect one of them to get far more: it has learned code.`,
        label: "Write Python",
        ready: () => true,
        run: (show) => this.measure(show),
      }),
      this.step({
        title: "Switch that expert off",
        expect: `Its router then takes the next best for each token (${expertsPerToken} per token as before). Expect other words that still look like code: all other layers work as they did.`,
        label: "Switch it off and let it write Python again",
        ready: () => this.found.code,
        run: (show) => this.without(show),
      }),
      this.step({
        title: "Does a story miss it?",
        expect: "The same twice with a story: first with all experts, then without that one. Expect hardly any difference, because stories seldom went to it.",
        label: "Write a story with and without it",
        ready: () => this.found.changed,
        run: (show) => this.story(show),
      }),
    ];
    this.root.replaceChildren(
      element("p", { class: "hint" }, "Three steps show that experts specialise, and what is lost without one. They write texts of their own, always with the likeliest token; the answer that the page shows stays as it is."),
      element("ol", { class: "steps" }, ...this.steps.map(({ node }) => node)),
      element("p", { class: "hint" }, "The tab Routing switches any expert off in your own texts."),
    );
  }

  step({ title, expect, label, ready, run }) {
    const button = element("button", { type: "button" }, label);
    const result = element("div", { class: "result", "aria-live": "polite" });
    const show = (...content) => result.replaceChildren(...content);
    button.addEventListener("click", () => void run(show));
    const node = element("li", {}, element("h3", {}, title), element("p", {}, element("strong", {}, "What to expect. "), expect), button, result);
    return { node, button, ready };
  }

  async answer(show, prompt, disabled) {
    const text = element("div", { class: "text small" });
    show(text);
    const onToken = (run) => showColoured(text, run, this.layer);
    const run = await this.write(prompt, { ...SETTINGS, routing: { disabled } }, onToken);
    if (!run) return undefined;
    showColoured(text, run, this.layer);
    const { moeLayers, experts } = this.state.info.model;
    return { ...run, node: text, shares: shares(loads(run.rows, moeLayers.length, experts)[this.layer]) };
  }

  async measure(show) {
    const code = await this.answer(show, CODE, []);
    if (!code) return;
    this.found = { code, expert: code.shares.indexOf(Math.max(...code.shares)) };
    const { expert } = this.found;
    const times = (code.shares[expert] / this.even).toFixed(1);
    show(code.node, element("p", {}, "Expert ", chip(expert, code.shares[expert]), ` got ${times} times an even share. Then come `, ...others(code.shares, expert), "."));
    this.steps[1].button.textContent = `Switch off expert ${expert} and let it write Python again`;
    this.steps[2].button.textContent = `Write a story with and without expert ${expert}`;
    this.update();
  }

  /** The expert in the last layer, as options have it. */
  get switchedOff() {
    return { expert: this.found.expert, layer: this.state.info.model.moeLayers[this.layer] };
  }

  async without(show) {
    const { code, expert } = this.found;
    const changed = await this.answer(show, CODE, [this.switchedOff]);
    if (!changed) return;
    this.found.changed = changed;
    const gained = changed.shares.map((share, index) => ({ index, gain: share - code.shares[index] })).filter(({ index }) => index !== expert);
    const [first, second] = gained.sort((a, b) => b.gain - a.gain);
    const same = common(code, changed);
    show(
      changed.node,
      element(
        "p",
        {},
        same === length(code) ? "The text is the same. " : `The text differs from new token ${same + 1} on. `,
        "Its work went mostly to ",
        chip(first.index, changed.shares[first.index]),
        ` (${percent(code.shares[first.index])} before) and `,
        chip(second.index, changed.shares[second.index]),
        ` (${percent(code.shares[second.index])} before).`,
      ),
    );
    this.update();
  }

  async story(show) {
    const { expert } = this.found;
    const story = await this.answer(show, STORY, []);
    if (!story) return;
    const [whole, without] = ["With all experts:", `Without expert ${expert}:`].map((text) => element("p", { class: "hint" }, text));
    const changed = await this.answer((node) => show(whole, story.node, without, node), STORY, [this.switchedOff]);
    if (!changed) return;
    const same = common(story, changed);
    const before = `Expert ${expert} got ${percent(story.shares[expert])} of the story. `;
    const after = same === length(story) ? `Without it all ${same} new tokens are the same.` : `Without it the first ${same} of ${length(story)} new tokens are the same.`;
    show(whole, story.node, without, changed.node, element("p", {}, before, after));
  }
}

const length = ({ tokens, numPrompt }) => tokens.length - numPrompt;

/** How many new tokens are the same before the first that differs. */
function common(a, b) {
  let same = 0;
  while (same < Math.min(length(a), length(b)) && a.tokens[a.numPrompt + same].id === b.tokens[b.numPrompt + same].id) same++;
  return same;
}

const chip = (expert, share) => element("span", { class: "token chip", style: paint(expert) }, `${expert} · ${percent(share)}`);

/** The two busiest besides `expert`. */
function others(shares, expert) {
  const order = shares.map((share, index) => ({ share, index })).filter(({ index }) => index !== expert);
  order.sort((a, b) => b.share - a.share);
  return order.slice(0, 2).flatMap(({ share, index }, place) => [place > 0 ? " and " : "", chip(index, share)]);
}
