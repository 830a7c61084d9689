// What the page must do, in a real browser with the real demo model.

import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import Ajv from "ajv/dist/2020.js";
import { loads, preferencesOfToken } from "../../web/stats.js";
import { Session, answer, finished, nativeTrace, reference, write } from "./browser.mjs";

const DEMO = new URL("../../examples/models/demo/", import.meta.url);
const expected = JSON.parse(await readFile(new URL("expected.json", DEMO), "utf8"));
const NEW_TOKENS = 14;

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.openWithWorker(`
    for (const name of ["instantiate", "instantiateStreaming"]) {
      const make = WebAssembly[name];
      WebAssembly[name] = async (...all) => {
        const result = await make.apply(WebAssembly, all);
        globalThis.wasmMemory = (result.instance ?? result).exports.memory;
        return result;
      };
    }
  `);
});
after(() => session?.close());

test("the demo model is on the GPU, and its weights came over the network once and never lay in the wasm memory whole", async () => {
  const { device, from } = await page.evaluate(() => ({ ...window.moebius.state.info }));
  assert.notEqual(device.kind, "reference", JSON.stringify(device));
  assert.equal(from, "network");
  assert.equal(device.limits.subgroupSize, null);
  assert.equal(page.requests.filter(({ url }) => url.endsWith("model.safetensors")).length, 1);
  const memory = await page.workers()[0].evaluate(() => globalThis.wasmMemory.buffer.byteLength);
  console.log(`wasm memory after loading: ${(memory / 1e6).toFixed(1)} MB`);
  assert.ok(memory < 34_525_920, `${memory} bytes of wasm memory for a model of 34525920`);
});

for (const { prompt, ids, greedy } of expected.slice(0, 3)) {
  test(`greedy text after "${prompt}" is that of the native binary`, async () => {
    const found = await write(page, prompt, NEW_TOKENS);
    assert.deepEqual(found.promptIds, ids);
    assert.deepEqual(found.ids, greedy.slice(0, NEW_TOKENS));
    assert.ok(found.shown.startsWith(`<s>${prompt}`), found.shown);
    // The newest token has not been through the model.
    assert.equal(found.rows.length, ids.length + NEW_TOKENS - 1);
  });
}

test("the heat map and the colours show what was traced", async () => {
  await page.click("[data-view=heatmap]");
  const { rows } = await answer(page);
  const counts = loads(rows, 6, 8);
  const cells = await page.$$eval(".heatmap tbody tr", (lines) => lines.map((line) => [...line.querySelectorAll("td.cell")].map((cell) => Number(cell.dataset.count))));
  assert.deepEqual(cells, counts);
  const colours = await page.$$eval("#text-view .text > span[data-expert]", (spans) => spans.map((span) => Number(span.dataset.expert)));
  // The last layer, unless another is chosen.
  assert.deepEqual(colours, rows.map(({ experts }) => experts[5][0]));
  for (const { experts, weights } of rows) {
    for (const layer of weights) assert.ok(Math.abs(layer[0] + layer[1] - 1) < 1e-3 && layer[0] >= layer[1]);
    for (const layer of experts) assert.notEqual(layer[0], layer[1]);
  }
});

test("the routing on the GPU is that of the reference for the same tokens", async () => {
  const { prompt } = expected[2];
  const found = await answer(page);
  const wanted = await reference(DEMO, prompt, NEW_TOKENS);
  assert.deepEqual(found.ids, wanted.ids);
  assert.equal(found.rows.length, wanted.rows.length);
  found.rows.forEach(({ experts, weights }, token) => {
    assert.deepEqual(experts, wanted.rows[token].experts, `token ${token}`);
    weights.forEach((layer, index) =>
      layer.forEach((weight, rank) => assert.ok(Math.abs(weight - wanted.rows[token].weights[index][rank]) < 1e-3, `token ${token}, layer ${index}`)),
    );
  });
});

/** The same experts, and weights that differ by rounding only. */
function assertRows(found, wanted) {
  assert.equal(found.length, wanted.length);
  found.forEach(({ experts, weights }, token) => {
    assert.deepEqual(experts, wanted[token].experts, `token ${token}`);
    weights.flat().forEach((weight, index) => assert.ok(Math.abs(weight - wanted[token].weights.flat()[index]) < 1e-3, `token ${token}`));
  });
}

test("what the views hold is what moebius trace writes for the same tokens", async () => {
  const { prompt } = expected[2];
  const found = await answer(page);
  const wanted = await nativeTrace(prompt, NEW_TOKENS);
  // The newest token has no routing yet, and is not in a trace.
  assert.deepEqual(found.tokens.slice(0, found.rows.length), wanted.tokens);
  assertRows(found.rows, wanted.rows);
  const { statistics } = wanted;
  const counts = loads(found.rows, 6, 8);
  const balances = await page.evaluate((counts) => window.moebius.call("balance", { counts }), counts);
  counts.forEach((layer, index) => {
    assert.deepEqual(layer, statistics.layers[index].loads);
    for (const [name, value] of Object.entries(statistics.layers[index].balance)) {
      if (value === null) assert.equal(balances[index][name], null);
      else assert.ok(Math.abs(balances[index][name] - value) < 1e-9, `${name} of layer ${index}`);
    }
  });
  const { text, count } = statistics.preferences.find(({ text }) => text.trim() === text);
  const same = found.tokens.slice(0, found.rows.length).filter((token) => token.text.trim() === text).length;
  assert.equal(preferencesOfToken(found.tokens, found.rows, text, 6, 8).count, same);
  assert.ok(count <= same);
});

test("changed routing writes the answer anew, as the native program does, and as trained brings the first answer back", async () => {
  const { prompt, greedy } = expected[2];
  await page.click("[data-view=routing]");
  assert.equal(await page.isVisible("#changed"), false);
  const rewritten = async (act) => {
    const before = await page.evaluate(() => window.moebius.state.answers);
    await act();
    await page.waitForFunction((before) => !window.moebius.state.running && window.moebius.state.answers > before, before);
    return await answer(page);
  };
  const count = page.getByLabel("Experts per token");
  const one = await rewritten(async () => {
    await count.fill("1");
    await count.press("Enter");
  });
  assert.match(await page.textContent("#changed"), /no longer the model as trained: 1 expert per token/);
  const wanted = await nativeTrace(prompt, NEW_TOKENS, "--experts-per-token", "1");
  assert.notDeepEqual(one.ids, greedy.slice(0, NEW_TOKENS));
  assertRows(one.rows, wanted.rows);
  assert.ok(one.rows.every(({ experts }) => experts.every((layer) => layer.length === 1)));

  const switched = await rewritten(() => page.click("#view .switches button:nth-child(3)"));
  assert.ok(switched.rows.every(({ experts }) => experts.every(([expert]) => expert !== 2)));
  const forced = await rewritten(() => page.getByLabel("Send every token to").selectOption("5"));
  assert.ok(forced.rows.every(({ experts }) => experts.every(([expert]) => expert === 5)));
  const temperature = page.getByLabel("Router temperature");
  await rewritten(async () => {
    await temperature.fill("0.5");
    await temperature.press("Enter");
  });
  assert.match(await page.textContent("#changed"), /1 expert per token; without expert 2; always expert 5; router temperature 0.5/);
  const trained = await rewritten(() => page.getByRole("button", { name: "As trained" }).click());
  assert.deepEqual(trained.ids, greedy.slice(0, NEW_TOKENS));
  assert.equal(await page.isVisible("#changed"), false);
});

test("with fewer experts left than a token takes, it takes fewer, and the page says so", async () => {
  const { prompt, greedy } = expected[2];
  const count = page.getByLabel("Experts per token");
  for (let expert = 1; expert <= 7; expert++) await page.click(`#view .switches button:nth-child(${expert})`);
  await page.getByText("Only 1 expert of layer 0 is left, so every token goes to 1 expert instead of 2.").waitFor();
  assert.equal(await count.inputValue(), "1");
  assert.ok(await page.isDisabled("#view .switches button:nth-child(8)"), "the last one stays on");
  await page.waitForFunction(() => !window.moebius.state.running && window.moebius.state.rows.length > 0 && window.moebius.state.rows.every(({ experts }) => experts.every((layer) => layer.join() === "7")));
  assert.equal(await page.isVisible("#notice"), false);
  // As soon as there are enough again, it is as before.
  await page.click("#view .switches button:nth-child(1)");
  assert.equal(await count.inputValue(), "2");
  await page.waitForFunction(() => !window.moebius.state.running && window.moebius.state.rows.length > 0 && window.moebius.state.rows.every(({ experts }) => experts.every((layer) => [...layer].sort().join() === "0,7")));
  await page.getByRole("button", { name: "As trained" }).click();
  await page.waitForFunction((wanted) => !window.moebius.state.running && window.moebius.state.tokens.slice(window.moebius.state.numPrompt).map(({ id }) => id).join() === wanted, greedy.slice(0, NEW_TOKENS).join());
  assert.deepEqual((await write(page, prompt, NEW_TOKENS)).ids, greedy.slice(0, NEW_TOKENS));
});

test("routing that cannot be is refused in words, and the page goes on working", async () => {
  await page.click("#view .switches button:nth-child(4)");
  await finished(page);
  await page.getByLabel("Send every token to").selectOption("3");
  await page.getByText(/forced expert: expected one that is not switched off in layer 0, found 3/).waitFor();
  await page.getByRole("button", { name: "As trained" }).click();
  await page.waitForFunction(() => document.getElementById("notice").hidden);
  await finished(page);
  const { prompt, greedy } = expected[2];
  assert.deepEqual((await write(page, prompt, NEW_TOKENS)).ids, greedy.slice(0, NEW_TOKENS));
});

test("a token that is pointed at shows its experts in every layer", async () => {
  const { rows } = await answer(page);
  await page.locator("#text-view .text > span").nth(3).hover();
  const shown = await page.$$eval("#text-view .layers li", (lines) => lines.map((line) => [...line.querySelectorAll(".chip")].map((chip) => Number.parseInt(chip.textContent, 10))));
  assert.deepEqual(shown, rows[3].experts);
});

test("preferences list a token and an expert's tokens", async () => {
  await page.click("[data-view=preferences]");
  await page.fill("#view input", "the");
  assert.match(await page.textContent("#view"), /It occurred \d+ times/);
  assert.ok((await page.locator("ol.tokens li").count()) > 0);
});

test("stop ends an answer mid-way, and the page goes on working", async () => {
  await page.fill("#maxTokens", "400");
  await page.click("#generate");
  await page.waitForFunction(() => window.moebius.state.tokens.length - window.moebius.state.numPrompt >= 3);
  await page.keyboard.press("Escape");
  await finished(page);
  const { ids } = await answer(page);
  assert.ok(ids.length >= 3 && ids.length < 400, `${ids.length} tokens`);
  assert.match(await page.textContent("#status"), /stopped/);
  const { prompt, greedy } = expected[0];
  assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
});

test("the keyboard generates, walks through the tokens and changes the view", async () => {
  await page.fill("#maxTokens", "2");
  await page.focus("#prompt");
  const before = await page.evaluate(() => window.moebius.state.answers);
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction((before) => !window.moebius.state.running && window.moebius.state.answers > before, before);
  await page.focus("#text-view .text");
  for (let step = 0; step < 3; step++) await page.keyboard.press("ArrowRight");
  assert.match(await page.textContent("#text-view .detail h3"), /^Token 2 /);
  await page.focus("[data-view=heatmap]");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.getAttribute("[data-view=preferences]", "aria-selected"), "true");
});

test("at phone width nothing is wider than the screen, in every view", async () => {
  const before = page.viewportSize();
  await page.setViewportSize({ width: 360, height: 740 });
  for (const view of ["experiment", "heatmap", "preferences", "compare", "routing", "device", "stored"]) {
    await page.click(`[data-view=${view}]`);
    const [width, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(width <= screen, `${view}: ${width} > ${screen}`);
  }
  await page.setViewportSize(before);
});

test("every kernel agrees with its reference in the browser, and the table can be copied", async () => {
  await session.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.click("[data-view=device]");
  await page.getByRole("button", { name: "Check this device" }).click();
  // Every kernel is compiled in every variant, for a software GPU.
  await finished(page, 600_000);
  assert.match(await page.textContent("#view [role=status]"), /All \d+ cases passed/);
  await page.getByRole("button", { name: "Copy as text" }).click();
  await page.getByText("copied").waitFor();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /router_topk\t\d+\t0\t/);
});

test("what the check found and how fast the model runs can be saved as the report that the program writes", async () => {
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: 300_000 }), page.getByRole("button", { name: "Save a report" }).click()]);
  assert.equal(download.suggestedFilename(), "moebius-device-report.json");
  const report = JSON.parse(await readFile(await download.path(), "utf8"));
  const schema = JSON.parse(await readFile(new URL("../../docs/device-report.schema.json", import.meta.url), "utf8"));
  const validate = new Ajv({ allErrors: true, strictTypes: false }).compile(schema);
  assert.ok(validate(report), JSON.stringify(validate.errors));
  assert.equal(report.check.passed, true);
  assert.ok(report.check.kernels.length > 15);
  assert.equal(report.system.os, "browser");
  assert.equal(report.system.architecture, await page.evaluate(() => navigator.userAgent));
  assert.deepEqual(report.bench.tests.map(({ name }) => name), ["pp128", "tg32"]);
  assert.equal(report.bench.model, report.bench.family);
  // The model is there again, and writes as before.
  await finished(page);
  assert.equal(await page.evaluate(() => window.moebius.state.info !== undefined), true);
});

test("two prompts can be compared, and the answer beside stays", async () => {
  const before = await answer(page);
  await page.fill("#maxTokens", "3");
  await page.click("[data-view=compare]");
  await page.click("#view button");
  await page.waitForSelector("#view .heatmap");
  assert.equal(await page.locator("#view .heatmap tbody tr").count(), 6);
  assert.deepEqual(await answer(page), before);
  for (const text of await page.locator("#view .text").allTextContents()) assert.ok(text.length > 0);
});

test("a reload takes the model from storage: no weights on the network", async () => {
  session.assertClean(page);
  page.requests.length = 0;
  const started = performance.now();
  await page.reload();
  await session.ready(page);
  const { from } = await page.evaluate(() => ({ ...window.moebius.state.info }));
  assert.equal(from, "storage");
  assert.deepEqual(page.requests.filter(({ url }) => url.includes("/models/")), []);
  await write(page, "The king", 1);
  console.log(`from navigation to the first token, warm cache: ${((performance.now() - started) / 1000).toFixed(1)} s`);
});

test("storage lists the model, verifies it, and removes it", async () => {
  await page.click("[data-view=stored]");
  await page.getByRole("button", { name: "Verify" }).click();
  await page.getByText("every file is as it was fetched").waitFor();
  await page.getByRole("button", { name: "Remove" }).click();
  await page.getByText("No model is stored").waitFor();
});

test("an interrupted download is resumed, and a damaged one is refused", async () => {
  let cut = true;
  await session.context.route("**/models/demo/model.safetensors", async (route) => {
    if (!cut) return await route.fallback();
    cut = false;
    const whole = await readFile(new URL("model.safetensors", DEMO));
    await route.fulfill({ status: 200, body: whole.subarray(0, 5_000_000) });
  });
  await page.click("#load");
  await finished(page);
  assert.match(await page.textContent("#notice"), /arrived damaged: expected 34525920 bytes, received 5000000/);
  page.requests.length = 0;
  await page.click("#load");
  await finished(page);
  assert.equal(await page.isVisible("#notice"), false);
  assert.deepEqual(page.requests.filter(({ url }) => url.endsWith("model.safetensors")).map(({ range }) => range), ["bytes=5000000-"]);
  const { prompt, greedy } = expected[1];
  assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
});

test("nothing went elsewhere or into the console", () => session.assertClean(page));

test("a model comes from a URL without a list of its files, and from a folder", async () => {
  const { prompt, greedy } = expected[1];
  for (const kind of ["url", "folder"]) {
    await page.selectOption("#model-kind", kind);
    if (kind === "url") await page.fill("#model-name", "/models//demo");
    else await page.setInputFiles("#model-folder", fileURLToPath(DEMO));
    await page.click("#load");
    await finished(page);
    assert.match(await page.textContent("#status"), kind === "url" ? /from network/ : /from folder/);
    assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
  }
  // Browsers report it when an optional file is not there.
  assert.deepEqual(page.problems.filter((text) => !text.includes("404")), []);
});

test("a folder in the chosen folder is not part of the model", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moebius-folder-"));
  try {
    await cp(DEMO, folder, { recursive: true });
    await mkdir(join(folder, "original"));
    // Another layout of the same model, as checkouts of gpt-oss have it.
    for (const name of ["config.json", "model.safetensors"]) await writeFile(join(folder, "original", name), "{}");
    await page.selectOption("#model-kind", "folder");
    await page.setInputFiles("#model-folder", folder);
    await page.click("#load");
    await finished(page);
    assert.match(await page.textContent("#status"), /from folder/);
    const { prompt, greedy } = expected[1];
    assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("addresses that differ only after 200 characters are two models", async () => {
  const beginning = `/teams/${"language-research/".repeat(14)}step-`;
  await page.context().route("**/teams/**", async (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop();
    const body = await readFile(new URL(name, DEMO)).catch(() => undefined);
    const size = { "content-length": String(body?.length ?? 0) };
    await route.fulfill(body ? { body, headers: size } : { status: 404 });
  });
  await page.selectOption("#model-kind", "url");
  for (const end of ["10000", "20000"]) {
    await page.fill("#model-name", `${beginning}${end}`);
    await page.click("#load");
    await finished(page);
    assert.match(await page.textContent("#status"), /from network/, end);
    assert.ok(page.requests.some(({ url }) => url.includes(`step-${end}/`) && url.endsWith("config.json")), end);
  }
});
