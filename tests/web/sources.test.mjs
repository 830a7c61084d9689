// Servers, folders and files as they are in the field: what can be loaded is, everything else is refused in words, with the address, and
// before weights are fetched. The model from before stays usable.

import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session, finished, nativeTrace, write } from "./browser.mjs";
import { faulty, send } from "./faulty.mjs";

const FIXTURES = fileURLToPath(new URL("../golden/fixtures/", import.meta.url));
const PAGE = "<!doctype html><html><body>Please log in</body></html>";
const html = (response, status = 200) => response.writeHead(status, { "Content-Type": "text/html", "Access-Control-Allow-Origin": "*" }).end(PAGE);
const config = (change) => (request, response, name, body) => name === "config.json" && send(request, response, Buffer.from(JSON.stringify({ ...JSON.parse(body), ...change })));
const weights = (text) => (request, response, name) => name === "model.safetensors" && send(request, response, Buffer.from(text));

const BEHAVIOURS = {
  /** An application of one page: whatever is not there is its page, with 200. */
  spa: (_, response, name, body) => body === undefined && html(response),
  /** The page for everything. */
  portal: (_, response) => html(response),
  "no-head": (request, response) => request.method === "HEAD" && response.writeHead(405).end(),
  /** Whole files only, whatever is asked for, and by no known length. */
  "no-ranges": (_, response, name, body) => {
    response.writeHead(body ? 200 : 404, { "Access-Control-Allow-Origin": "*", "Content-Type": "application/octet-stream" });
    return response.end(body);
  },
  "no-cors": (_, response, name, body) => response.writeHead(body ? 200 : 404).end(body),
  /** As stores of objects do for what is not there. */
  forbidden: (_, response, name, body) => body === undefined && response.writeHead(403, { "Access-Control-Allow-Origin": "*" }).end(),
  login: (_, response) => response.writeHead(401, { "Access-Control-Allow-Origin": "*" }).end(),
  broken: (_, response) => response.writeHead(500, { "Access-Control-Allow-Origin": "*" }).end(),
  "no-json": (request, response, name) => name === "config.json" && send(request, response, Buffer.from("{ nothing")),
  awq: config({ quantization_config: { quant_method: "awq", bits: 4 } }),
  dense: config({ model_type: "gemma3" }),
  pointer: weights("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
  "html-shard": weights(PAGE),
  "html-typed": (_, response, name) => name === "model.safetensors" && html(response),
  gguf: weights("GGUF\x03\0\0\0"),
  cut: (request, response, name, body) => name === "model-00002-of-00003.safetensors" && send(request, response, body.subarray(0, body.length - 100)),
};

/** What breaks off once; then a file that has changed meanwhile, or has not. */
let breaks = 0;
let tag = '"1"';
BEHAVIOURS.breaks = (request, response, name, body) => {
  if (!body) return false;
  if (name !== "model.safetensors" || (request.headers.range && !request.headers.range.endsWith("-")) || breaks === 0) return send(request, response, body, tag ? { ETag: tag } : {});
  breaks--;
  response.writeHead(200, { "Access-Control-Allow-Origin": "*", "Cache-Control": "no-store", "Content-Length": body.length, "Content-Type": "application/octet-stream" });
  response.write(body.subarray(0, 100_000), () => setTimeout(() => response.destroy(), 200));
  return true;
};
/** Too busy twice. */
let busy = 0;
BEHAVIOURS.busy = (_, response) => busy-- > 0 && response.writeHead(503, { "Access-Control-Allow-Origin": "*", "Retry-After": "1" }).end();

let session;
let page;
let server;
before(async () => {
  server = await faulty(BEHAVIOURS);
  session = await Session.start();
  page = await session.open();
});
after(async () => {
  await session?.close();
  await server?.close();
});

async function load(address) {
  server.requests.length = 0;
  await page.selectOption("#model-kind", "url");
  await page.fill("#model-name", address.startsWith("http") ? address : `${server.origin}/${address}`);
  await page.click("#load");
  await finished(page);
  return { status: await page.textContent("#status"), notice: (await page.isVisible("#notice")) ? await page.textContent("#notice") : "" };
}

async function chooseFolder(folder) {
  await page.selectOption("#model-kind", "folder");
  await page.setInputFiles("#model-folder", folder);
  await page.click("#load");
  await finished(page);
  return { status: await page.textContent("#status"), notice: (await page.isVisible("#notice")) ? await page.textContent("#notice") : "" };
}

/** What the program writes with the same fixture. */
async function assertWrites(fixture) {
  const found = await write(page, "the king and", 4);
  const wanted = await nativeTrace("the king and", 4, join(FIXTURES, fixture));
  assert.deepEqual(found.tokens.slice(0, found.rows.length), wanted.tokens);
  assert.deepEqual(found.rows.map(({ experts }) => experts), wanted.rows.map(({ experts }) => experts));
}

const weightsFetched = () => server.requests.filter((line) => /safetensors(?!\.index)/.test(line) && !/ bytes=\d+-\d+$/.test(line));

for (const behaviour of ["spa", "no-head", "no-ranges", "forbidden"]) {
  test(`a server that behaves as "${behaviour}" gives the model`, async () => {
    const { status, notice } = await load(`${behaviour}/mixtral`);
    assert.match(status, /Ready .* from network\./, notice);
    assert.equal(await page.evaluate(() => window.moebius.state.info.name), `${server.origin}/${behaviour}/mixtral/`);
    assert.equal(server.requests.filter((line) => line.startsWith("HEAD")).length, 0);
    await assertWrites("mixtral");
  });
}

test("a model in shards comes from a server that hides the size of its files", async () => {
  const { status, notice } = await load("plain/deepseek_v3/model.safetensors.index.json");
  assert.match(status, /Ready .* from network\./, notice);
  await assertWrites("deepseek_v3");
});

const REFUSED = [
  ["portal/mixtral", /mixtral\/config\.json: the server answered with a web page in place of the file\. Hint: .*login page/],
  ["missing/nothing", /missing\/nothing\/config\.json: there is no such file \(HTTP 404\)/],
  ["login/mixtral", /login\/mixtral\/config\.json: the server wants a login \(HTTP 401\)/],
  ["broken/mixtral", /broken\/mixtral\/config\.json: the server answered with HTTP 500/],
  ["no-cors/mixtral", /no-cors\/mixtral\/config\.json: the server answers, but does not let this page read its files \(CORS\)\. Hint: .*Access-Control-Allow-Origin/],
  ["no-json/mixtral", /no-json\/mixtral\/config\.json cannot be parsed: key must be a string/],
  ["awq/mixtral", /quantised with AWQ, as `quantization_config` says, and this format is not read/],
  ["dense/mixtral", /`gemma3` is a dense model/],
  ["pointer/mixtral", /pointer\/mixtral\/model\.safetensors is not a valid safetensors file: it is a Git LFS pointer/],
  ["html-shard/mixtral", /html-shard\/mixtral\/model\.safetensors is not a valid safetensors file: it is a web page/],
  ["html-typed/mixtral", /html-typed\/mixtral\/model\.safetensors: the server answered with a web page/],
  ["gguf/mixtral", /gguf\/mixtral\/model\.safetensors is not a valid safetensors file: it is a GGUF file/],
  ["cut/deepseek_v3", /cut\/deepseek_v3\/model-00002-of-00003\.safetensors is not a valid safetensors file: its tensors take \d+ bytes, but \d+ follow/],
  ["plain/mixtral/model-Q4_K_M.gguf", /model-Q4_K_M\.gguf: there is no such file \(HTTP 404\)/],
];

for (const [address, said] of REFUSED) {
  test(`${address} is refused in words, before weights are fetched`, async () => {
    const { status, notice } = await load(address);
    assert.match(notice, said);
    assert.ok(notice.includes(server.origin), `no address: ${notice}`);
    assert.doesNotMatch(notice, /--|`moebius |MOEBIUS_/);
    assert.deepEqual(weightsFetched(), []);
    assert.match(status, /The model from before is still loaded: .*deepseek_v3/);
  });
}

test("after failed loads the model from before goes on writing", () => assertWrites("deepseek_v3"));

test("a download that breaks off goes on from there, unless the file has changed", async () => {
  for (const [after, resumed] of [['"1"', /model\.safetensors bytes=\d{5,6}-$/], ['"2"', /model\.safetensors$/]]) {
    breaks = 1;
    tag = '"1"';
    await page.evaluate(async (base) => window.moebius.call("remove", { base }), `${server.origin}/breaks/mixtral/`);
    const { notice } = await load("breaks/mixtral");
    assert.match(notice, new RegExp(`${server.origin}/breaks/mixtral/model\\.safetensors: the connection broke off before the file was complete\\. Hint: what has arrived is kept`));
    tag = after;
    const { status } = await load("breaks/mixtral");
    assert.match(status, /Ready .* from network\./);
    assert.match(weightsFetched().join("\n"), resumed);
  }
  // Without a tag there is no telling, and nothing is promised.
  breaks = 1;
  tag = "";
  await page.evaluate(async (base) => window.moebius.call("remove", { base }), `${server.origin}/breaks/mixtral/`);
  assert.match((await load("breaks/mixtral")).notice, /the connection broke off before the file was complete\. Hint: load it again\.$/);
  assert.match((await load("breaks/mixtral")).status, /Ready .* from network\./);
  assert.match(weightsFetched().join("\n"), /model\.safetensors$/);
  await assertWrites("mixtral");
});

test("a busy server is asked again", async () => {
  busy = 2;
  assert.match((await load("busy/olmoe")).status, /Ready .* from network\./);
  busy = 3;
  assert.match((await load("busy/qwen2_moe")).notice, /busy\/qwen2_moe\/config\.json: the server is too busy \(HTTP 503\), also after 3 attempts/);
});

test("a store that is full is no obstacle, and the page says so", async () => {
  const devtools = await session.context.newCDPSession(page);
  try {
    const { usage } = await page.evaluate(() => navigator.storage.estimate());
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: session.origin, quotaSize: usage + 100_000 });
    const { status, notice } = await load("plain/phimoe");
    assert.match(status, /Ready .* from network, not stored\./, notice);
    assert.match(notice, /^Not stored: this browser has no room for 3\d\d kB more\. Remove stored models/);
    await assertWrites("phimoe");
  } finally {
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: session.origin });
  }
});

test("no server, and no network, are told apart", async () => {
  const gone = await faulty({});
  await gone.close();
  const refused = await load(`${gone.origin}/a/mixtral`);
  assert.match(refused.notice, new RegExp(`${gone.origin}/a/mixtral/config\\.json: there is no server, or it refuses the connection`));
  await session.context.setOffline(true);
  try {
    const { notice } = await load("plain/olmoe");
    assert.match(notice, new RegExp(`This browser is offline, so ${server.origin}/plain/olmoe/config\\.json cannot be fetched`));
  } finally {
    await session.context.setOffline(false);
  }
});

test("the parent of model folders is told apart, and says which folders hold a model", async () => {
  const parent = await mkdtemp(join(tmpdir(), "moebius-parent-"));
  try {
    for (const fixture of ["mixtral", "olmoe"]) await cp(join(FIXTURES, fixture), join(parent, "checkpoints", fixture), { recursive: true });
    const { notice } = await chooseFolder(parent);
    const name = parent.split("/").pop();
    assert.match(notice, new RegExp(`The folder ${name} has no config\\.json of its own, but 2 folders in it hold a model: ${name}/checkpoints/mixtral, ${name}/checkpoints/olmoe`));
    assert.match((await chooseFolder(join(parent, "checkpoints", "mixtral"))).status, /Ready .* from folder/);
  } finally {
    await rm(parent, { recursive: true, force: true });
  }
});

test("folders with files of other programs say what they are", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moebius-foreign-"));
  try {
    await cp(join(FIXTURES, "mixtral", "config.json"), join(folder, "config.json"));
    await cp(join(FIXTURES, "mixtral", "tokenizer.json"), join(folder, "tokenizer.json"));
    for (const [file, said] of [["model-q4.gguf", /GGUF/], ["pytorch_model.bin", /Python pickles/], ["consolidated.safetensors", /Mistral's own layout/]]) {
      await writeFile(join(folder, file), "x");
      const { notice } = await chooseFolder(folder);
      assert.match(notice, said);
      assert.ok(notice.includes(folder.split("/").pop()) && notice.includes(file), notice);
      await rm(join(folder, file));
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("what was decided about the files of a model is shown", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moebius-notes-"));
  try {
    await cp(join(FIXTURES, "mixtral"), folder, { recursive: true });
    const path = join(folder, "config.json");
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), tie_word_embeddings: true }));
    await writeFile(join(folder, "generation_config.json"), JSON.stringify({ temperature: -3 }));
    assert.match((await chooseFolder(folder)).status, /Ready/);
    await page.click("#notes-title");
    const notes = await page.locator("#notes li").allTextContents();
    assert.ok(notes.some((note) => /the embedding is the head .*`lm_head\.weight`: it is used\./.test(note)), notes.join("\n"));
    assert.ok(notes.some((note) => /temperature/.test(note)), notes.join("\n"));
    await chooseFolder(join(FIXTURES, "mixtral"));
    assert.equal(await page.isVisible("#notes-block"), false);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("a weight that is not a number ends in words and not in nonsense", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moebius-nan-"));
  try {
    await cp(join(FIXTURES, "mixtral"), folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const file = await readFile(path);
    const headerBytes = Number(file.readBigUInt64LE(0));
    const { dtype, data_offsets } = JSON.parse(file.subarray(8, 8 + headerBytes))["model.layers.1.block_sparse_moe.experts.2.w2.weight"];
    const at = 8 + headerBytes + data_offsets[0];
    if (dtype === "F32") file.writeFloatLE(NaN, at);
    else file.writeUInt16LE(0x7fc0, at);
    await writeFile(path, file);
    for (const device of ["gpu", "cpu"]) {
      await page.selectOption("#device", device);
      assert.match((await chooseFolder(folder)).status, /Ready/);
      await write(page, "Once upon a time there was", 6);
      const notice = await page.textContent("#notice");
      assert.match(notice, /the model computes numbers that are not finite: it begins in the experts or MLP of layer 1\. Hint: /, device);
      assert.doesNotMatch(notice, /--|MOEBIUS_|`moebius /);
    }
  } finally {
    await page.selectOption("#device", "gpu");
    await rm(folder, { recursive: true, force: true });
  }
});

test("a model that fails while its weights are read leaves the one from before", async () => {
  assert.match((await chooseFolder(join(FIXTURES, "mixtral"))).status, /Ready/);
  const folder = await mkdtemp(join(tmpdir(), "moebius-vanishing-"));
  try {
    // What is wrong shows only after every check: a code that is not a number in FP8 weights.
    await cp(join(FIXTURES, "deepseek_v3_fp8"), folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const file = await readFile(path);
    const headerBytes = Number(file.readBigUInt64LE(0));
    const header = JSON.parse(file.subarray(8, 8 + headerBytes));
    const [, { data_offsets }] = Object.entries(header).find(([, { dtype }]) => dtype === "F8_E4M3");
    file[8 + headerBytes + data_offsets[0]] = 0x7f;
    await writeFile(path, file);
    const { status, notice } = await chooseFolder(folder);
    assert.match(notice, /element 0 is not a number/);
    assert.match(status, /The model from before is still loaded: mixtral/);
    await assertWrites("mixtral");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
