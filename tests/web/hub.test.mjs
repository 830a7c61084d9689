// Models on the hub, which the test plays: what can be loaded is, and what cannot is said, with the address, before weights are fetched.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Session, finished } from "./browser.mjs";

const FIXTURES = new URL("../golden/fixtures/", import.meta.url);
const HUB = "https://huggingface.co";
const CORS = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Content-Range" };

let session;
let page;
/** What was asked of the hub. */
let asked = [];
/** Names of repositories to their files: `{ [path]: Buffer }`, or a status. */
const repositories = {};

before(async () => {
  for (const fixture of ["mixtral", "deepseek_v3"]) {
    const folder = new URL(`${fixture}/`, FIXTURES);
    const names = (await readdir(folder)).filter((name) => !name.startsWith("expected") && name !== "refuses.json");
    repositories[`tiny/${fixture}`] = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(new URL(name, folder))])));
  }
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
  await session.context.route(`${HUB}/**`, answer);
  page = await session.open();
});
after(() => session?.close());

async function answer(route) {
  const request = route.request();
  const { pathname } = new URL(request.url());
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers().range ?? "");
  asked.push(`${pathname}${range ? ` ${range[0]}` : ""}`);
  const [, listed, name, , revision, path] = /^(\/api\/models)?\/([^/]+\/[^/]+)\/(tree|resolve)\/([^/]+)\/?(.*)$/.exec(pathname);
  const files = revision === "main" || revision === "v2" ? repositories[name] : undefined;
  if (typeof files === "number") return await route.fulfill({ status: files, headers: CORS });
  if (typeof files === "string") return await route.fulfill({ status: 200, headers: CORS, contentType: "text/html", body: files });
  if (!files) return await route.fulfill({ status: 404, headers: CORS });
  const { damaged, ...there } = files;
  if (listed) {
    const oid = (bytes) => createHash("sha256").update(bytes).digest("hex");
    const list = Object.entries(there).map(([path, bytes]) => ({ type: "file", path, size: bytes.length, ...(path.endsWith("safetensors") && { lfs: { oid: path === damaged ? oid("other") : oid(bytes) } }) }));
    return await route.fulfill({ headers: CORS, contentType: "application/json", body: JSON.stringify(list) });
  }
  const body = there[path];
  if (!body) return await route.fulfill({ status: 404, headers: CORS });
  if (!range) return await route.fulfill({ headers: CORS, body });
  const [start, end] = [Number(range[1]), Math.min(range[2] ? Number(range[2]) : Infinity, body.length - 1)];
  return await route.fulfill({ status: 206, headers: { ...CORS, "Content-Range": `bytes ${start}-${end}/${body.length}` }, body: body.subarray(start, end + 1) });
}

async function load(name) {
  asked = [];
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
  assert.deepEqual(asked, []);
});

for (const [name, said] of [
  ["tiny/nothing", /huggingface\.co\/api\/models\/tiny\/nothing\/tree\/main: the hub has no public model tiny\/nothing at main/],
  ["tiny/mixtral@v9", /the hub has no public model tiny\/mixtral at v9/],
  ["tiny/gated", /the hub has no public model tiny\/gated at main\. Hint: .*gated or private/],
  ["tiny/portal", /api\/models\/tiny\/portal\/tree\/main: the server answered with a web page in place of the file\. Hint: .*login page/],
  ["tiny/gguf", /huggingface\.co\/tiny\/gguf\/resolve\/main\/ has no config\.json; it has `tiny-Q4_K_M\.gguf`: weights for llama\.cpp \(GGUF\)/],
  ["tiny/pickle", /huggingface\.co\/tiny\/pickle\/resolve\/main\/ has no model\.safetensors; it has `pytorch_model\.bin`: weights as Python pickles/],
  ["tiny/awq", /huggingface\.co\/tiny\/awq\/resolve\/main\/: config\.json: the weights are quantised with AWQ/],
  ["no name", /A model on the hub is named like org\/name, found "no name"/],
]) {
  test(`${name} is refused in words, before weights are fetched`, async () => {
    const { notice } = await load(name);
    assert.match(notice, said);
    assert.doesNotMatch(notice, /--|`moebius |MOEBIUS_/);
    assert.deepEqual(asked.filter((line) => line.endsWith(".safetensors")), []);
  });
}

test("weights that are not what the hub lists are refused, and fetched anew the next time", async () => {
  const { notice } = await load("tiny/damaged");
  assert.match(notice, /tiny\/damaged\/resolve\/main\/model\.safetensors arrived damaged: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}/);
  delete repositories["tiny/damaged"].damaged;
  assert.match((await load("tiny/damaged")).status, /Ready .* from network\./);
  assert.ok(asked.includes("/tiny/damaged/resolve/main/model.safetensors"), asked.join("\n"));
});
