// What "Automatic" stands for where software plays the GPU: the rule, the models that it meets, and the measurement that is made once and kept.

import assert from "node:assert/strict";
import { openAsBlob } from "node:fs";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import init, { fileFromBlob, referenceMemory } from "moebius";
import { decide, softwareName } from "../../web/choice.js";
import { Session, finished } from "./browser.mjs";

const GIB = 2 ** 30;
await init({ module_or_path: await readFile(new URL(import.meta.resolve("moebius/moebius_bg.wasm"))) });
const blob = async (path) => fileFromBlob(await openAsBlob(new URL(path, import.meta.url)));

test("software is told by its name or its mark", () => {
  assert.equal(softwareName({ vendor: "google", architecture: "swiftshader" }), "google swiftshader");
  assert.equal(softwareName({ isFallbackAdapter: true }), "software");
  assert.equal(softwareName({ vendor: "nvidia", architecture: "ampere" }), undefined);
  assert.equal(softwareName(undefined), undefined);
});

test("the bundled model fits in f32 with room to spare, and OLMoE does not", async () => {
  const demo = {};
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) demo[name] = await blob(`../../examples/models/demo/${name}`);
  const small = await referenceMemory(demo, "demo");
  assert.equal(small.fits, true);
  assert.match(small.model, /^mixtral, 17\d{6} parameters, moebius \d/i);
  // Of a model that does not fit, nothing but its config is looked at.
  const large = await referenceMemory({ "config.json": await blob("../golden/configs/olmoe-1b-7b.json") }, "OLMoE");
  assert.equal(large.fits, false);
  // 6.9 billion weights of four bytes, and the keys and values of 4096 tokens.
  assert.ok(large.neededBytes > 25 * GIB && large.neededBytes < 28 * GIB && large.roomBytes <= GIB, JSON.stringify(large));

  const software = "google swiftshader";
  const [bytes, memory] = [34e6, small];
  assert.deepEqual(decide({ memory, bytes }), { device: "auto" }, "a GPU");
  const key = `${software}; ${small.model}`;
  const choice = (comparison) => decide({ software, memory, bytes, measured: comparison && { [key]: comparison } });
  assert.deepEqual(choice(), { device: "cpu", why: { kind: "guessed", key, comparison: undefined, prefers: true } });
  assert.equal(choice({ gpu: 100, reference: 129, prefersReference: false }).device, "auto");
  assert.equal(choice({ gpu: 100, reference: 131, prefersReference: true }).device, "cpu");
  assert.equal(decide({ software, memory, bytes, measured: { "another device": { prefersReference: false } } }).device, "cpu");
  assert.equal(decide({ software, memory, bytes: 200e6 }).device, "auto", "too large for a guess");
  const of = decide({ software, memory: large, bytes: 13.8e9 });
  assert.equal(of.device, "auto");
  assert.deepEqual(of.why, { kind: "large", ...large });
});

test("where nobody chose, both are measured once after the first answer, and what is kept decides from then on", async () => {
  const session = await Session.start();
  try {
    const page = await session.open(undefined, "#write=no");
    const kind = () => page.evaluate(() => window.moebius.state.info.device.kind);
    const kept = () => page.evaluate(() => JSON.parse(localStorage.getItem("moebius") ?? "{}").measured);
    assert.equal(await kind(), "reference", "a guess until it is measured");
    await page.waitForFunction(() => JSON.parse(localStorage.getItem("moebius") ?? "{}").measured, undefined, { timeout: 120_000 });
    const [[key, comparison]] = Object.entries(await kept());
    assert.match(key, /swiftshader.*; Mixtral, 17/i);
    assert.ok(comparison.gpu > 0 && comparison.reference > 0, JSON.stringify(comparison));
    assert.equal(comparison.prefersReference, comparison.reference / comparison.gpu >= 1.3);
    await page.click("#why summary");
    assert.match(await page.innerText("#why-text"), /Measured here once: \d+ tokens per second on the reference, \d+ on WebGPU/);
    for (const [rates, expected] of [[{ gpu: 100, reference: 20, prefersReference: false }, "software"], [{ gpu: 100, reference: 131, prefersReference: true }, "reference"]]) {
      const change = ([key, rates]) => localStorage.setItem("moebius", JSON.stringify({ ...JSON.parse(localStorage.getItem("moebius")), measured: { [key]: rates } }));
      await page.evaluate(change, [key, rates]);
      await page.reload();
      await session.ready(page);
      await finished(page);
      assert.equal(await kind(), expected);
      assert.match(await page.textContent("#why-text"), new RegExp(`Measured here once: ${rates.reference} tokens per second on the reference, 100 on WebGPU`));
      assert.deepEqual((await kept())[key], rates, "it is not measured again");
    }
    session.assertClean(page);
  } finally {
    await session.close();
  }
});
