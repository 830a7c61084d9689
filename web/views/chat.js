// A conversation, in the form that the model was trained on. What it thinks before an answer is folded away, and is no part of what goes on.

import { element } from "../dom.js";

export class ChatView {
  /** `answer(messages, onParts)` resolves to the summary, or to nothing if it failed. `stop()` ends an answer. */
  constructor(root, state, answer, stop) {
    this.state = state;
    this.answer = answer;
    this.messages = [];
    this.about = element("p", { class: "hint" });
    this.system = element("textarea", { rows: "1", spellcheck: "false" });
    this.list = element("ol", { class: "chat", "aria-label": "Conversation", "aria-live": "polite" });
    this.input = element("textarea", { rows: "2", "aria-label": "Your message", onkeydown: (event) => this.key(event) });
    this.sendButton = element("button", { type: "submit", class: "primary" }, "Send");
    this.stopButton = element("button", { type: "button", onclick: stop }, "Stop");
    this.newButton = element("button", { type: "button", onclick: () => this.clear() }, "New conversation");
    const onsubmit = (event) => {
      event.preventDefault();
      void this.send();
    };
    root.replaceChildren(
      this.about,
      element("details", {}, element("summary", {}, "What the model is told first"), element("label", {}, "System message ", this.system)),
      this.list,
      element("form", { onsubmit }, this.input, element("div", { class: "row" }, this.sendButton, this.stopButton, this.newButton)),
    );
    this.update();
  }

  update() {
    const { info, running } = this.state;
    if (this.info !== info) {
      // What was said belongs to the model that said it.
      if (this.info) this.clear();
      this.info = info;
    }
    this.about.textContent = !info
      ? "Load a model to talk with it."
      : info.model.chatTemplate
        ? `The conversation is written as the model's chat template wants it. It may have ${info.model.context} tokens.`
        : "This model has no chat template: it has learned to continue texts, not to answer. It gets the conversation as lines of User: and Assistant:, and goes on writing.";
    this.sendButton.disabled = running || !info;
    this.stopButton.disabled = !running;
    this.newButton.disabled = running;
  }

  key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    // The page's own Ctrl-Enter continues the prompt above.
    event.stopPropagation();
    void this.send();
  }

  clear() {
    this.messages = [];
    this.list.replaceChildren();
  }

  async send() {
    const text = this.input.value.trim();
    if (!text || this.state.running || !this.state.info) return;
    const asked = { role: "user", content: text };
    const system = this.system.value.trim();
    const before = system ? [{ role: "system", content: system }] : [];
    const question = element("li", { class: "user" }, text);
    const shown = new Answer();
    this.list.append(question, shown.element);
    this.input.value = "";
    const summary = await this.answer([...before, ...this.messages, asked], (parts) => shown.add(parts));
    if (!summary || (summary.stop === "cancelled" && !summary.answer.trim())) {
      // Nothing was answered, so the question is not kept either.
      question.remove();
      shown.element.remove();
      this.input.value ||= text;
      return;
    }
    shown.finish(summary);
    const answered = { role: "assistant", content: summary.answer.trim() };
    // Templates leave it out of earlier turns, or know what to do with it.
    if (summary.thinking.trim()) answered.thinking = summary.thinking.trim();
    this.messages.push(asked, answered);
  }
}

/** One answer as it is written. */
class Answer {
  constructor() {
    this.title = element("summary", {}, "Thinking …");
    this.thinking = element("div", { class: "said" });
    this.folded = element("details", { class: "thinking", hidden: true }, this.title, this.thinking);
    this.text = element("div", { class: "said" });
    this.cut = element("p", { class: "hint", hidden: true });
    this.element = element("li", { class: "assistant" }, this.folded, this.text, this.cut);
  }

  add(parts) {
    for (const { part, text } of parts) {
      const target = part === "thinking" ? this.thinking : this.text;
      target.append(target.childNodes.length === 0 ? text.trimStart() : text);
      if (part === "thinking") this.folded.hidden = false;
    }
  }

  finish({ thinking, answer, stop }) {
    this.thinking.textContent = thinking.trim();
    this.text.textContent = answer.trim();
    this.title.textContent = "What it thought";
    const why = { max_tokens: "The answer was cut: it would have been longer.", context_full: "The context is full: begin a new conversation.", cancelled: "Stopped." }[stop];
    this.cut.textContent = why ?? "";
    this.cut.hidden = !why;
  }
}
