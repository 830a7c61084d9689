// The service worker: the page opens without a network, warm visits fetch nothing, and a new version replaces the old one whole.

import assert from "node:assert/strict";
import { appendFile, cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session, finished, write } from "./browser.mjs";

const WEB = fileURLToPath(new URL("../../web/", import.meta.url));
const expected = JSON.parse(await readFile(new URL("../../examples/models/demo/expected.json", import.meta.url), "utf8"));

let session;
let page;
let web;
/** What the server sent: `{ url, status, bytes }`. */
const sent = [];
before(async () => {
  web = await mkdtemp(join(tmpdir(), "moebius-page-"));
  await cp(WEB, web, { recursive: true });
  session = await Session.start({ web, serviceWorkers: "allow" });
  session.server.prependListener("request", (request, response) => {
    const before = request.socket.bytesWritten;
    response.on("finish", () => {
      const hasBody = response.statusCode !== 304 && request.method !== "HEAD";
      sent.push({ url: request.url, status: response.statusCode, bytes: hasBody ? Number(response.getHeader("content-length") ?? request.socket.bytesWritten - before) : 0 });
    });
  });
  page = await session.open();
});
after(async () => {
  await session?.close();
  if (web) await rm(web, { recursive: true, force: true });
});

const caches = () => page.evaluate(() => window.caches.keys());

test("the first visit keeps the page, and sends no file twice", async () => {
  await page.evaluate(async () => {
    const { active } = await navigator.serviceWorker.ready;
    if (active.state !== "activated") await new Promise((resolve) => active.addEventListener("statechange", resolve, { once: true }));
  });
  assert.equal((await caches()).length, 1);
  const bodies = sent.filter(({ bytes }) => bytes > 0).map(({ url }) => url);
  assert.deepEqual(bodies.filter((url, index) => bodies.indexOf(url) !== index), []);
  const wasm = sent.find(({ url, bytes }) => url.endsWith(".wasm") && bytes > 0);
  console.log(`first visit: ${(sent.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1)} MB sent, of which the wasm takes ${(wasm.bytes / 1e6).toFixed(2)} MB`);
});

test("a warm visit fetches 0 bytes", async () => {
  sent.length = 0;
  const started = performance.now();
  await page.reload();
  await session.ready(page);
  assert.equal((await page.evaluate(() => window.moebius.state.info)).from, "storage");
  await write(page, "The king", 1);
  console.log(`from navigation to the first token, warm: ${((performance.now() - started) / 1000).toFixed(1)} s`);
  // The browser looks whether there is a newer version some time after the page has opened.
  await page.waitForTimeout(3000);
  assert.equal(sent.reduce((sum, { bytes }) => sum + bytes, 0), 0, JSON.stringify(sent));
  assert.deepEqual(sent.filter(({ url }) => !["/sw.js", "/pkg/shell.js"].includes(url)), []);
});

test("a new version waits, then replaces the old one whole", async () => {
  await appendFile(join(web, "app.js"), "\nwindow.edition = 2;\n");
  await appendFile(join(web, "worker.js"), "\n// edition 2\n");
  await page.reload();
  await session.ready(page);
  await page.evaluate(async () => (await navigator.serviceWorker.ready).update());
  await page.locator("#update").waitFor();
  assert.equal(await page.evaluate(() => window.edition), undefined);
  assert.equal((await caches()).length, 2);
  assert.doesNotMatch(await page.evaluate(async () => (await fetch("worker.js")).text()), /edition 2/, "files of two versions do not mix");
  sent.length = 0;
  await Promise.all([page.waitForEvent("load"), page.getByRole("button", { name: "Reload with it" }).click()]);
  await session.ready(page);
  assert.equal(await page.evaluate(() => window.edition), 2);
  assert.match(await page.evaluate(async () => (await fetch("worker.js")).text()), /edition 2/);
  await page.waitForFunction(async () => (await window.caches.keys()).length === 1);
  assert.equal(await page.locator("#update").count(), 0);
});

test("a version that arrives damaged is not taken", async () => {
  const before = await caches();
  await session.context.route("**/views/text.js", (route) => route.fulfill({ body: "broken", contentType: "text/javascript" }));
  await appendFile(join(web, "app.js"), "\nwindow.edition = 3;\n");
  const state = await page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready;
    const found = new Promise((resolve) => registration.addEventListener("updatefound", () => resolve(registration.installing), { once: true }));
    await registration.update().catch(() => {});
    const worker = await found;
    while (worker.state === "installing") await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
    return worker.state;
  });
  await session.context.unroute("**/views/text.js");
  assert.equal(state, "redundant");
  assert.deepEqual(await caches(), before);
});

test("without a network the page opens, and the model writes", async () => {
  await session.context.setOffline(true);
  await new Promise((resolve) => {
    session.server.close(resolve);
    session.server.closeAllConnections();
  });
  await page.goto(`${session.origin}/?from=a-link`);
  await session.ready(page);
  assert.equal((await page.evaluate(() => window.moebius.state.info)).from, "storage");
  const { prompt, greedy } = expected[1];
  assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
  await finished(page);
});
