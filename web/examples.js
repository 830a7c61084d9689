// Prompts of five kinds, each of which the bundled model sends to other experts.

import { $, element } from "./dom.js";
import { state } from "./state.js";
import { generate } from "./writing.js";

export const EXAMPLES = [
  ["A story", "Once upon a time there was a king who"],
  ["Law", "In this appeal, the appellant contends that the trial court erred in"],
  ["Python", "    def __init__(self, name):\n        self."],
  ["A word problem", "Question: Tom has 3 apples and buys 5 more. How many apples does Tom have?\nAnswer:"],
  ["Medicine", "Patients with type 2 diabetes were treated with"],
];

export function showExamples() {
  const buttons = EXAMPLES.map(([name, prompt]) =>
    element(
      "button",
      {
        type: "button",
        class: "example",
        onclick: () => {
          if (state.running) return;
          $("prompt").value = prompt;
          void generate(prompt);
        },
      },
      name,
    ),
  );
  $("examples").append(...buttons);
}
