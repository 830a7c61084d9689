// The first minutes of somebody who is new: what the page does by itself, what it explains, and whether what it promises is true.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { loads, shares } from "../../web/stats.js";
import { Session, answer, finished } from "./browser.mjs";

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.open(undefined, "");
});
after(() => session?.close());

test("without a click the page has written an answer, coloured by the last layer, beside what the words mean", async () => {
  const { tokens, rows } = await answer(page);
  assert.ok(tokens.length > 20, `${tokens.length} tokens`);
  const colours = await page.$$eval("#text-view .text > span[data-expert]", (spans) => spans.map((span) => Number(span.dataset.expert)));
  assert.deepEqual(colours, rows.map(({ experts }) => experts[5][0]));
  const sentences = await page.locator(".intro li").allInnerTexts();
  assert.equal(sentences.length, 3);
  assert.match(sentences[0], /expert is a small network.*has 8 of them.*only 2/s);
  assert.match(sentences[1], /router/);
  assert.match(sentences[2], /colour is an expert/);
});

test("a software GPU gives way to the reference for a small model, and the page says why and how to choose otherwise", async () => {
  assert.equal(await page.evaluate(() => window.moebius.state.info.device.kind), "reference");
  assert.equal(await page.innerText("#why summary"), "It runs on the reference, which is quicker here");
  await page.click("#why summary");
  assert.match(await page.innerText("#why"), /WebGPU is played by the processor, and there the reference, which needs no GPU, is quicker for a small model.*choose it under “Runs on”/s);
  await page.selectOption("#device", "gpu");
  await page.click("#load");
  await finished(page);
  assert.equal(await page.evaluate(() => window.moebius.state.info.device.kind), "software");
  assert.equal(await page.isVisible("#why"), false);
  await page.selectOption("#device", "auto");
  await page.click("#load");
  await finished(page);
});

test("a word is explained on hover and on focus, until Escape", async () => {
  const tip = page.getByRole("tooltip");
  await page.hover(".intro [data-term=router]");
  await tip.getByText(/scores all its experts/).waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await tip.isVisible(), false);
  await page.focus(".intro [data-term=token]");
  await tip.getByText(/piece of text/).waitFor();
  assert.equal(await page.getAttribute(".intro [data-term=token]", "aria-describedby"), "tip");
  await page.focus("#prompt");
  assert.equal(await tip.isVisible(), false);
});

test("each example goes to other experts of the last layer", async () => {
  await page.locator("#sampling").evaluate((details) => (details.open = true));
  await page.fill("#temperature", "0");
  await page.fill("#repeatPenalty", "1.1");
  await page.fill("#maxTokens", "36");
  const busiest = [];
  for (const name of ["A story", "Law", "Python", "A word problem", "Medicine"]) {
    const before = await page.evaluate(() => window.moebius.state.answers);
    await page.getByRole("button", { name, exact: true }).click();
    await page.waitForFunction((before) => !window.moebius.state.running && window.moebius.state.answers > before, before);
    const { rows } = await answer(page);
    const top = new Array(8).fill(0);
    rows.forEach(({ experts }) => top[experts[5][0]]++);
    busiest.push(top.indexOf(Math.max(...top)));
    console.log(`${name}: expert ${busiest.at(-1)} first for ${Math.round((100 * Math.max(...top)) / rows.length)} %`);
  }
  assert.deepEqual(busiest, [3, 4, 7, 1, 2]);
});

test("the guided experiment shows what it says: code misses expert 7, a story does not", async () => {
  const before = await answer(page);
  await page.click("#try-experiment");
  assert.ok(await page.isDisabled(".steps li:nth-child(2) button"), "one step after the other");
  await page.getByRole("button", { name: "Write Python", exact: true }).click();
  await page.getByText(/Expert 7 · 4\d %.* got 3\.\d times an even share/s).waitFor();
  await page.getByRole("button", { name: "Switch off expert 7 and let it write Python again" }).click();
  const changed = page.locator(".steps li:nth-child(2) .result");
  await changed.getByText(/The text differs from new token \d+ on\. Its work went mostly to/).waitFor();
  // No token of the changed text is in the colour of expert 7.
  const experts = await changed.locator(".text .token[data-expert]").evaluateAll((spans) => spans.map((span) => span.dataset.expert));
  assert.ok(experts.length > 40 && !experts.includes("7"), experts.join());
  await page.getByRole("button", { name: "Write a story with and without expert 7" }).click();
  await page.getByText(/Expert 7 got [0-5] % of the story\. Without it all 40 new tokens are the same\./).waitFor();
  assert.deepEqual(await answer(page), before, "the answer beside stays");
});

test("what the experiment says of the shares is what the routers did", async () => {
  const { rows } = await page.evaluate(() => ({ rows: window.moebius.state.all.rows }));
  // Step three wrote last: the story with and without the expert, 50 tokens each less the newest.
  const without = rows.slice(-49);
  assert.equal(shares(loads(without, 6, 8)[5])[7], 0);
  assert.ok(shares(loads(rows.slice(-98, -49), 6, 8)[5])[7] < 0.06);
});

test("on a warm visit the first token comes within six seconds, without a click", async () => {
  session.assertClean(page);
  const started = performance.now();
  await page.reload({ waitUntil: "commit" });
  await page.waitForFunction(() => window.moebius?.state.tokens.length > window.moebius?.state.numPrompt && window.moebius.state.numPrompt > 0);
  const seconds = (performance.now() - started) / 1000;
  console.log(`from navigation to the first token, without a click: ${seconds.toFixed(1)} s`);
  assert.ok(seconds < 6, `${seconds} s`);
});
