// Models on the hub, which the test plays: what can be loaded is, and what cannot is said, with the address, before weights are fetched.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session, finished } from "./browser.mjs";
import { Hub, filesOf } from "./hub.mjs";

const FIXTURES = fileURLToPath(new URL("../golden/fixtures/", import.meta.url));

let session;
let page;
let hub;

before(async () => {
  const repositories = {};
  for (const fixture of ["mixtral", "deepseek_v3"]) repositories[`tiny/${fixture}`] = await filesOf(`${FIXTURES}${fixture}`);
  const { "model.safetensors": weights, ...rest } = repositories["tiny/mixtral"];
  const config = JSON.parse(rest["config.json"]);
  const configured = (change) => ({ ...rest, "model.safetensors": weights, "config.json": Buffer.from(JSON.stringify({ ...config, ...change })) });
  repositories["tiny/gguf"] = { "README.md": Buffer.from("x"), "tiny-Q4_K_M.gguf": Buffer.from("GGUF") };
  repositories["tiny/pickle"] = { ...rest, "pytorch_model.bin": Buffer.from("PK") };
  repositories["tiny/awq"] = configured({ quantization_config: { quant_method: "awq", bits: 4 } });
  repositories["tiny/damaged"] = { ...rest, "model.safetensors": weights, damaged: "model.safetensors" };
  repositories["tiny/gated"] = 401;
  repositories["tiny/portal"] = "<!doctype html><title>Welcome</title>";
  session = await Session.start();
  hub = await Hub.play(session.context, repositories);
  page = await session.open();
});
after(() => session?.close());

async function load(name) {
  hub.asked.length = 0;
  await page.selectOption("#model-kind", "hub");
  await page.fill("#model-name", name);
  await page.click("#load");
  await finished(page);
  return { status: await page.textContent("#status"), notice: (await page.isVisible("#notice")) ? await page.textContent("#notice") : "" };
}

test("a model in one file, one in shards, a revision, and the address of a page", async () => {
  for (const name of ["tiny/mixtral", "tiny/deepseek_v3", "tiny/mixtral@v2", "https://huggingface.co/tiny/deepseek_v3/tree/v2", "hf.co/tiny/mixtral/"]) {
    const { status, notice } = await load(name);
    assert.match(status, /Ready .* from (network|storage)\./, `${name}: ${notice}`);
  }
  // The last is the first again.
  assert.deepEqual(hub.asked, []);
});

for (const [name, said] of [
  ["tiny/nothing", /huggingface\.co\/api\/models\/tiny\/nothing\/tree\/main: the hub has no public model tiny\/nothing at main/],
  ["tiny/mixtral@v9", /the hub has no public model tiny\/mixtral at v9/],
  ["tiny/gated", /the hub has no public model tiny\/gated at main\. Hint: .*gated or private/],
  ["tiny/portal", /api\/models\/tiny\/portal\/tree\/main\?recursive=true: the server answered with a web page in place of the file\. Hint: .*login page/],
  ["tiny/gguf", /huggingface\.co\/tiny\/gguf\/resolve\/main\/tiny-Q4_K_M\.gguf cannot be read as GGUF: the version takes 4 bytes, but 0 are left for the header/],
  ["tiny/pickle", /huggingface\.co\/tiny\/pickle\/resolve\/main\/ has no model\.safetensors; it has `pytorch_model\.bin`: weights as Python pickles/],
  ["tiny/awq", /huggingface\.co\/tiny\/awq\/resolve\/main\/: config\.json: the weights are quantised with AWQ/],
  ["no name", /A model on the hub is named like org\/name, or org\/name:Q4_K_M for one of its GGUF files, found "no name"/],
]) {
  test(`${name} is refused in words, before weights are fetched`, async () => {
    const { notice } = await load(name);
    assert.match(notice, said);
    assert.doesNotMatch(notice, /--|`moebius |MOEBIUS_/);
    assert.deepEqual(hub.asked.filter((line) => line.endsWith(".safetensors")), []);
  });
}

test("weights that are not what the hub lists are refused, and fetched anew the next time", async () => {
  const { notice } = await load("tiny/damaged");
  assert.match(notice, /tiny\/damaged\/resolve\/main\/model\.safetensors arrived damaged: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}/);
  delete hub.repositories["tiny/damaged"].damaged;
  assert.match((await load("tiny/damaged")).status, /Ready .* from network\./);
  assert.ok(hub.asked.includes("/tiny/damaged/resolve/main/model.safetensors"), hub.asked.join("\n"));
});
