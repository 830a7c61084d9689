// GGUF files in the page: from an address, from the hub and from this machine they write what the program writes.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session, finished, nativeTrace, write } from "./browser.mjs";
import { faulty } from "./faulty.mjs";
import { Hub } from "./hub.mjs";

const GGUF = fileURLToPath(new URL("../golden/gguf/", import.meta.url));
const Q4_K_M = "quants/mixtral-q4_k_m.gguf";
const SPLIT = [1, 2, 3].map((part) => `quants/mixtral-split-q4_0-0000${part}-of-00003.gguf`);

let session;
let page;
let server;
let hub;
before(async () => {
  const file = (path) => readFile(join(GGUF, path));
  const parts = Object.fromEntries(await Promise.all(SPLIT.map(async (path) => [path.replace("quants/", "Q4_0/"), await file(path)])));
  const repositories = {
    "tiny/one": { "README.md": Buffer.from("x"), "mixtral-Q4_K_M.gguf": await file(Q4_K_M) },
    "tiny/several": { "mixtral-Q4_K_M.gguf": await file(Q4_K_M), "mixtral-Q8_0.gguf": await file("quants/mixtral-q8_0.gguf"), ...parts },
  };
  // Whole files only, by no known length.
  const whole = (_, response, name, body) => {
    response.writeHead(body ? 200 : 404, { "Access-Control-Allow-Origin": "*", "Content-Type": "application/octet-stream" });
    return response.end(body);
  };
  server = await faulty({ whole }, GGUF);
  session = await Session.start();
  hub = await Hub.play(session.context, repositories);
  page = await session.open();
});
after(async () => {
  await session?.close();
  await server?.close();
});

async function load(kind, fill) {
  server.requests.length = 0;
  hub.asked.length = 0;
  await page.selectOption("#model-kind", kind);
  await fill();
  await page.click("#load");
  await finished(page);
  return { status: await page.textContent("#status"), notice: (await page.isVisible("#notice")) ? await page.textContent("#notice") : "" };
}

const loadUrl = (path) => load("url", () => page.fill("#model-name", `${server.origin}/${path}`));
const loadHub = (name) => load("hub", () => page.fill("#model-name", name));
const loadFiles = (...paths) => load("file", () => page.setInputFiles("#model-file", paths.map((path) => join(GGUF, path))));

const expected = {};
async function assertWrites(path) {
  const found = await write(page, "the king and", 6);
  const wanted = (expected[path] ??= await nativeTrace("the king and", 6, join(GGUF, path)));
  assert.deepEqual(found.tokens.slice(0, found.rows.length), wanted.tokens);
  assert.deepEqual(found.rows.map(({ experts }) => experts), wanted.rows.map(({ experts }) => experts));
}

/** Requests for more than a range that is known from the header, which begin a download. */
const downloads = () => server.requests.filter((line) => !/ bytes=\d+-\d+$/.test(line));

test("a file comes from its address, header first, and from storage the next time", async () => {
  const { status, notice } = await loadUrl(`plain/${Q4_K_M}`);
  assert.match(status, /Ready .* from network\./, notice);
  assert.equal(await page.evaluate(() => window.moebius.state.info.name), `${server.origin}/plain/${Q4_K_M}`);
  assert.deepEqual(downloads(), [`GET /plain/${Q4_K_M}`]);
  assert.ok(server.requests.indexOf(downloads()[0]) > 0, "the header is looked at before the file is fetched");
  await assertWrites(Q4_K_M);
  assert.match((await loadUrl(`plain/${Q4_K_M}`)).status, /Ready .* from storage\./);
  assert.deepEqual(server.requests, []);
  await assertWrites(Q4_K_M);
});

test("a split file comes whole, whichever of its parts is named", async () => {
  const { status, notice } = await loadUrl(`plain/${SPLIT[1]}`);
  assert.match(status, /Ready .* from network\./, notice);
  assert.deepEqual(downloads(), SPLIT.map((path) => `GET /plain/${path}`));
  await assertWrites(SPLIT[0]);
});

test("a server that sends whole files only gives the model", async () => {
  const { status, notice } = await loadUrl(`whole/${Q4_K_M}`);
  assert.match(status, /Ready .* from network\./, notice);
  await assertWrites(Q4_K_M);
});

test("a file of this machine is read where it lies, and so are all parts of a split one", async () => {
  for (const paths of [[Q4_K_M], SPLIT, ["quants/mixtral2-zoo.gguf"]]) {
    const { status, notice } = await loadFiles(...paths);
    assert.match(status, /Ready .* from file\./, notice);
    await assertWrites(paths[0]);
  }
  assert.deepEqual([...server.requests, ...hub.asked], []);
  const { notice } = await loadFiles(SPLIT[0], SPLIT[2]);
  assert.match(notice, /mixtral-split-q4_0-00002-of-00003\.gguf/);
});

test("the hub gives the only file of a repository, and of several the one that is named", async () => {
  assert.match((await loadHub("tiny/one")).status, /Ready .* from network\./);
  await assertWrites(Q4_K_M);
  const { notice } = await loadHub("tiny/several");
  assert.match(notice, /tiny\/several\/resolve\/main\/: the repository has 3 models as GGUF; write one of tiny\/several:Q4_K_M, tiny\/several:Q8_0, tiny\/several:q4_0/);
  for (const [name, path] of [["tiny/several:Q8_0", "quants/mixtral-q8_0.gguf"], ["tiny/several:Q4_0", SPLIT[0]], ["https://huggingface.co/tiny/several/blob/main/mixtral-Q4_K_M.gguf", Q4_K_M]]) {
    const { status, notice } = await loadHub(name);
    assert.match(status, /Ready .* from network\./, `${name}: ${notice}`);
    await assertWrites(path);
  }
  // Each has a place of its own in storage.
  assert.match((await loadHub("tiny/several:Q8_0")).status, /Ready .* from storage\./);
  await assertWrites("quants/mixtral-q8_0.gguf");
  assert.match((await loadHub("tiny/several:Q2_K")).notice, /no GGUF file of the repository has `Q2_K` in its name/);
});

test("what cannot be run is refused by its header, and the model from before stays", async () => {
  for (const [path, said] of [
    ["attacks/arch_missing.gguf", /attacks\/arch_missing\.gguf cannot be read as GGUF: .*general\.architecture/],
    ["attacks/magic.gguf", /attacks\/magic\.gguf/],
    ["attacks/version_99.gguf", /version/],
    ["attacks/absent.gguf", /absent\.gguf: there is no such file \(HTTP 404\)/],
  ]) {
    const { status, notice } = await loadUrl(`plain/${path}`);
    assert.match(notice, said);
    assert.doesNotMatch(notice, /--|`moebius |MOEBIUS_/);
    assert.deepEqual(downloads(), []);
    assert.match(status, /The model from before is still loaded/);
  }
  await assertWrites("quants/mixtral-q8_0.gguf");
});
