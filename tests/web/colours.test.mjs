// The colours of experts: can people with colour vision deficiency tell them apart?

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { difference, lab, linear, simulate } from "../../scripts/vision.mjs";
import { colourOf, inkOn } from "../../web/colours.js";

const VISIONS = ["normal", "deuteranopia", "protanopia"];

/** The smallest CIE76 difference between any two of the first `count` colours. */
function smallest(count, vision) {
  const seen = Array.from({ length: count }, (_, expert) => lab(simulate(colourOf(expert), vision)));
  return Math.min(...seen.flatMap((a, index) => seen.slice(index + 1).map((b) => difference(a, b))));
}

test("the simulation gives the values of Machado 2009 and of CIELAB", () => {
  // White and grey stay what they are; red and green come near each other.
  for (const vision of VISIONS) assert.ok(difference(lab(simulate("#808080", vision)), lab(linear("#808080"))) < 0.01, vision);
  const [l, a, b] = lab(linear("#ff0000"));
  assert.ok(Math.abs(l - 53.24) < 0.01 && Math.abs(a - 80.09) < 0.02 && Math.abs(b - 67.2) < 0.02, `${l} ${a} ${b}`);
  const [red] = simulate("#ff0000", "protanopia");
  assert.ok(Math.abs(red - 0.152286) < 1e-6);
  assert.ok(difference(lab(simulate("#ff0000", "deuteranopia")), lab(simulate("#808000", "deuteranopia"))) < difference(lab(linear("#ff0000")), lab(linear("#808000"))));
});

for (const vision of VISIONS) {
  test(`any two of eight experts differ by at least 10 to ${vision}`, () => {
    const found = smallest(8, vision);
    console.log(`${vision}: ${found.toFixed(2)}`);
    assert.ok(found >= 10, String(found));
  });

  // 2.3 is the difference that one just notices.
  for (const [count, least] of [[60, 8], [128, 5], [256, 3]]) {
    test(`no two of ${count} experts look the same to ${vision}`, () => {
      const found = smallest(count, vision);
      console.log(`${vision}, ${count} experts: ${found.toFixed(2)}`);
      assert.ok(found >= least, String(found));
    });
  }
}

test("what is written on a colour can be read", () => {
  const luminance = (colour) => linear(colour).reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0.05);
  for (let expert = 0; expert < 512; expert++) {
    const [low, high] = [luminance(colourOf(expert)), luminance(inkOn(colourOf(expert)))].sort((a, b) => a - b);
    assert.ok(high / low >= 4.5, `${expert}: ${colourOf(expert)}`);
  }
});

test("the first colours are those of the published scheme", async () => {
  const source = await readFile(new URL("../../scripts/palette.mjs", import.meta.url), "utf8");
  const published = JSON.parse(/PUBLISHED = (\[.*\])/.exec(source)[1]);
  assert.deepEqual(published.map((_, expert) => colourOf(expert)), published);
  // Paul Tol's light scheme.
  const light = ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00", "#dddddd"];
  assert.deepEqual(published.filter((colour) => !light.includes(colour)), []);
});
