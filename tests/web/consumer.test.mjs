// What an npm consumer gets: types that check (scripts/web-test.sh runs the compiler) and a package that runs, here without a GPU.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import init, { balance } from "moebius";
import { distance, preferencesOfToken, shares, topTokens } from "../../web/stats.js";

test("ten lines of TypeScript load the package and trace a generation", () => {
  const demo = fileURLToPath(new URL("../../examples/models/demo", import.meta.url));
  const text = execFileSync(process.execPath, [fileURLToPath(new URL("built/consumer.js", import.meta.url)), demo], { encoding: "utf8" });
  assert.equal(text.trim().split("\n").length, 3, text);
  assert.match(text, /\[ \d, \d \]/);
});

test("equal loads have entropy 1, one busy expert 0; a single expert is as even as can be", async () => {
  await init({ module_or_path: await readFile(new URL(import.meta.resolve("moebius/moebius_bg.wasm"))) });
  const of = (...loads) => balance(Uint32Array.from(loads));
  assert.deepEqual(of(5, 5, 5, 5), { ratio: 1, variation: 0, entropy: 1, dead: 0 });
  const { ratio, entropy, dead } = of(8, 0, 0, 0);
  assert.deepEqual([ratio, Math.abs(entropy), dead], [null, 0, 3]);
  assert.deepEqual([of(7).entropy, of(0, 0).variation, of(0, 0).ratio], [1, 0, null]);
});

test("distributions differ by the share that would have to move", () => {
  assert.equal(distance(shares([1, 1, 0, 0]), shares([0, 0, 3, 3])), 1);
  assert.equal(distance(shares([1, 1]), shares([3, 1])), 0.25);
});

test("preferences are those of the tokens with the same text, whatever the space around it", () => {
  const tokens = [{ text: " a" }, { text: "b" }, { text: "a" }];
  const rows = [{ experts: [[0, 1]] }, { experts: [[2, 3]] }, { experts: [[0, 2]] }];
  assert.deepEqual(preferencesOfToken(tokens, rows, "a", 1, 4), { count: 2, layers: [[0.5, 0.25, 0.25, 0]] });
  assert.deepEqual(topTokens(tokens, rows, 0, 2).map(({ text, count }) => [text, count]), [["a", 1], ["b", 1]]);
});
