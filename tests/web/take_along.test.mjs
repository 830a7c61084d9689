// What one learns of an answer and takes along: probabilities, steps, seeds, links, traces, pictures, and what the page remembers.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Session, answer, finished, nativeTrace, write } from "./browser.mjs";

const PROMPT = "Once upon a time there was a king who";
const NEW_TOKENS = 8;

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.open(undefined, "#device=cpu&write=no");
  await session.context.grantPermissions(["clipboard-read", "clipboard-write"]);
});
after(() => session?.close());

test("the five likeliest next tokens of a position are shown with their probabilities, and the one that came is among them", async () => {
  const { ids } = await write(page, PROMPT, NEW_TOKENS);
  const numPrompt = await page.evaluate(() => window.moebius.state.numPrompt);
  await page.locator("#text-view .text > span").nth(numPrompt - 1).hover();
  await page.waitForSelector("ol.next li.came");
  const shown = await page.$$eval("ol.next li", (lines) => lines.map((line) => ({ text: line.querySelector("code").textContent, share: Number.parseFloat(line.lastChild.textContent), came: line.className })));
  assert.equal(shown.length, 5);
  // Greedy: the likeliest came.
  assert.deepEqual(shown.map(({ came }) => came), ["came", "", "", "", ""]);
  shown.slice(1).forEach(({ share }, index) => assert.ok(share > 0 && share <= shown[index].share, JSON.stringify(shown)));
  assert.ok(shown.reduce((sum, { share }) => sum + share, 0) <= 100.3);
  // At every position, and the same as the engine says when asked directly.
  const [likeliest] = await page.evaluate(async () => {
    const { tokens, numPrompt } = window.moebius.state;
    const found = await window.moebius.call("likeliest", { ids: tokens.map(({ id }) => id), count: 1, routing: { disabled: [] } });
    return [found.slice(numPrompt - 1, -1).map(([{ id }]) => id)];
  });
  assert.deepEqual(likeliest, ids);
  // Asking has not disturbed the engine.
  assert.deepEqual((await write(page, PROMPT, NEW_TOKENS)).ids, ids);
});

test("step by step each press brings one token, and going on brings the rest", async () => {
  const numNew = () => page.evaluate(() => window.moebius.state.tokens.length - window.moebius.state.numPrompt);
  const whole = await answer(page);
  for (let step = 1; step <= 3; step++) {
    await page.click("#step");
    await page.waitForFunction((step) => window.moebius.state.running && window.moebius.state.numPrompt > 0 && window.moebius.state.tokens.length - window.moebius.state.numPrompt === step, step);
    await page.waitForTimeout(300);
    assert.equal(await numNew(), step);
  }
  await page.click("#go-on");
  await finished(page);
  assert.deepEqual((await answer(page)).ids, whole.ids);
  assert.equal(await page.isVisible("#go-on"), false);
});

test("the speed slider slows an answer down", async () => {
  const slider = page.locator("#pace");
  await slider.fill("2");
  assert.equal(await page.textContent("#pace-text"), "5 tokens per second");
  const started = performance.now();
  await page.click("#generate");
  await finished(page);
  assert.ok(performance.now() - started > (NEW_TOKENS - 1) * 200);
  await slider.fill("4");
});

test("every answer has a seed of its own, unless it is kept", async () => {
  await page.fill("#temperature", "1.5");
  const seeds = [];
  const texts = [];
  for (const fixed of [false, false, true, true]) {
    await page.setChecked("#fixed", fixed);
    await page.click("#generate");
    await finished(page);
    seeds.push(await page.inputValue("#seed"));
    texts.push((await answer(page)).ids.join());
  }
  assert.notEqual(seeds[0], seeds[1]);
  assert.equal(seeds[1], seeds[2]);
  assert.deepEqual([seeds[3], texts[2], texts[3]], [seeds[1], texts[1], texts[1]]);
  await page.setChecked("#fixed", false);
});

test("the saved trace is that of moebius trace", async () => {
  await write(page, PROMPT, NEW_TOKENS);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save the trace" }).click()]);
  assert.equal(download.suggestedFilename(), "moebius.jsonl");
  const lines = (await readFile(await download.path(), "utf8")).trimEnd().split("\n").map((line) => JSON.parse(line));
  const { lines: wanted } = await nativeTrace(PROMPT, NEW_TOKENS);
  assert.deepEqual(lines[0], wanted[0]);
  assert.equal(lines.length, wanted.length);
  lines.slice(1).forEach(({ weights, ...line }, index) => {
    const { weights: expected, ...other } = wanted[index + 1];
    assert.deepEqual(line, other);
    weights.forEach((weight, rank) => assert.ok(Math.abs(weight - expected[rank]) < 1e-3));
  });
});

test("the saved picture is a PNG with the colours of the text", async () => {
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save a picture" }).click()]);
  assert.equal(download.suggestedFilename(), "moebius.png");
  const base64 = (await readFile(await download.path())).toString("base64");
  const found = await page.evaluate(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    const colours = new Set();
    for (let at = 0; at < data.length; at += 4) colours.add(data.slice(at, at + 3).join());
    const shown = [...document.querySelectorAll("#text-view .text > .token[data-expert]")].map((span) => getComputedStyle(span).backgroundColor.match(/\d+/g).slice(0, 3).join());
    return { width: image.width, missing: shown.filter((colour) => !colours.has(colour)) };
  }, base64);
  assert.deepEqual(found, { width: 1200, missing: [] });
});

test("a link restores prompt, settings and routing, and the same text", async () => {
  await page.click("[data-view=routing]");
  const before = await page.evaluate(() => window.moebius.state.answers);
  await page.fill("#temperature", "0.9");
  await page.click("#view .switches button:nth-child(3)");
  await page.waitForFunction((before) => !window.moebius.state.running && window.moebius.state.answers > before, before);
  const shown = await answer(page);
  await page.getByRole("button", { name: "Copy a link" }).click();
  await page.getByText("Link copied.").waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await session.context.newPage();
  other.setDefaultTimeout(120_000);
  await other.goto(link.replace("#", "#device=cpu&"));
  await session.ready(other);
  assert.deepEqual(await answer(other), shown);
  assert.match(await other.textContent("#changed"), /without expert 2/);
  assert.equal(await other.inputValue("#prompt"), PROMPT);
  await other.close();
  await page.getByRole("button", { name: "Copy the text" }).click();
  await page.getByText("Text copied.").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), shown.shown);
});

test("a link to another model fetches nothing before Load is pressed", async () => {
  const other = await session.context.newPage();
  const requests = [];
  other.on("request", (request) => requests.push(request.url()));
  await other.goto(`${session.origin}/#hub=some/model&prompt=Hello`);
  await other.getByText("This link is about the model some/model. Press “Load” to fetch it").waitFor();
  assert.equal(await other.inputValue("#prompt"), "Hello");
  assert.deepEqual(requests.filter((url) => !url.startsWith(session.origin)), []);
  await other.close();
});

test("theme and settings are remembered", async () => {
  await page.fill("#topK", "7");
  await page.fill("#topP", "0.9");
  await page.focus("#prompt");
  const dark = () => page.evaluate(() => document.documentElement.dataset.theme);
  await page.click("#theme");
  const theme = await dark();
  assert.ok(["dark", "light"].includes(theme));
  await page.reload();
  await session.ready(page);
  assert.equal(await dark(), theme);
  assert.deepEqual([await page.inputValue("#topK"), await page.inputValue("#topP")], ["7", "0.9"]);
});

test("nothing went elsewhere or into the console", () => session.assertClean(page));
