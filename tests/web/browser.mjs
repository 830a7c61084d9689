// The real page in headless Chromium, on SwiftShader: a software device that WebGPU reaches on any machine.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { openAsBlob } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import init, { Engine, fileFromBlob } from "moebius";
import { chromium } from "playwright-core";
import { serve } from "../../scripts/web-serve.mjs";

const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
];

/** A browser with storage of its own, and a server for it. `page.requests` and `page.problems` record what must not happen unseen. */
export class Session {
  /** `web`: another folder than web/. Service workers, which take requests out of a test's hands, are left to offline.test.mjs. */
  static async start({ web, ...options } = {}) {
    const session = new Session();
    session.server = await serve(0, web);
    session.origin = `http://localhost:${session.server.address().port}`;
    session.folder = await mkdtemp(join(tmpdir(), "moebius-web-"));
    session.context = await chromium.launchPersistentContext(session.folder, {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      headless: true,
      args: FLAGS,
      viewport: { width: 1280, height: 900 },
      serviceWorkers: "block",
      ...options,
    });
    return session;
  }

  /** Opens the page, on WebGPU and without an answer unless `hash` says otherwise. `change(page)` runs before it is loaded. */
  async open(change = async () => {}, hash = "#device=gpu&write=no") {
    const page = await this.context.newPage();
    page.setDefaultTimeout(120_000);
    page.requests = [];
    page.problems = [];
    // The context sees the requests of workers, too.
    this.context.on("request", (request) => page.requests.push({ url: request.url(), range: request.headers().range }));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && !message.text().includes("blocked by Playwright") && page.problems.push(message.text()));
    page.on("pageerror", (error) => page.problems.push(String(error)));
    await change(page);
    await page.goto(`${this.origin}/${hash}`);
    await this.ready(page);
    return page;
  }

  async ready(page) {
    await page.waitForFunction(() => !window.moebius?.state.running && (window.moebius?.state.info || !document.getElementById("notice").hidden));
  }

  /** Opens a page whose worker begins with `code`. */
  openWithWorker(code) {
    return this.open((page) =>
      page.route("**/worker.js", async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: `${code}\n${await response.text()}` });
      }),
    );
  }

  assertClean(page) {
    const outside = page.requests.filter(({ url }) => !url.startsWith(`${this.origin}/`) && !url.startsWith("blob:") && !url.startsWith("data:"));
    assert.deepEqual(outside, [], "no request leaves the origin");
    assert.deepEqual(page.problems, [], "nothing in the console");
  }

  async close() {
    await this.context?.close();
    await new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections?.();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Fills in the prompt, presses Generate and waits for the end. */
export async function write(page, prompt, maxTokens) {
  await page.fill("#prompt", prompt);
  await page.locator("#sampling").evaluate((details) => (details.open = true));
  await page.fill("#maxTokens", String(maxTokens));
  await page.fill("#temperature", "0");
  await page.fill("#repeatPenalty", "1");
  await page.click("#generate");
  await finished(page);
  return await answer(page);
}

/** What the reference, running in Node, does with the same prompt: `{ ids, rows }`. */
export async function reference(directory, prompt, maxTokens) {
  await (instance ??= init({ module_or_path: await readFile(new URL(import.meta.resolve("moebius/moebius_bg.wasm"))) }));
  const files = {};
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) files[name] = fileFromBlob(await openAsBlob(new URL(name, directory)));
  const engine = await Engine.load(files, { device: "cpu" });
  const ids = [];
  const rows = [];
  for await (const { id, routing } of engine.generate(prompt, { maxTokens, trace: true })) {
    ids.push(id);
    rows.push(...routing);
  }
  engine.free();
  return { ids, rows };
}
let instance;

const REPOSITORY = fileURLToPath(new URL("../../", import.meta.url));

/** What the native program prints on stdout; scripts/web-test.sh builds it. */
export function native(...args) {
  const program = resolve(REPOSITORY, process.env.CARGO_TARGET_DIR ?? "target", "debug/moebius");
  return execFileSync(program, args, { cwd: REPOSITORY, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

/** `moebius trace` of a prompt of the demo model and its greedy continuation: its lines, tokens and rows as the page has them, and the statistics. */
export async function nativeTrace(prompt, maxTokens, ...more) {
  const folder = await mkdtemp(join(tmpdir(), "moebius-trace-"));
  try {
    const file = join(folder, "trace.jsonl");
    native("trace", "-p", prompt, "-n", String(maxTokens), "--temp", "0", "--device", "cpu", "--out", file, ...more);
    const lines = (await readFile(file, "utf8")).trimEnd().split("\n").map((line) => JSON.parse(line));
    const records = lines.slice(1);
    const tokens = [];
    const rows = [];
    for (const { position, token, text, experts, weights } of records) {
      tokens[position] ??= { id: token, text };
      rows[position] ??= { experts: [], weights: [] };
      rows[position].experts.push(experts);
      rows[position].weights.push(weights);
    }
    return { lines, tokens, rows, statistics: JSON.parse(native("trace-report", file, "--json")) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export const finished = (page, timeout = 120_000) => page.waitForFunction(() => !window.moebius.state.running, undefined, { timeout });

/** What is shown: the ids of the new tokens, the text of every token, the routing. */
export const answer = (page) =>
  page.evaluate(() => {
    const { tokens, rows, numPrompt } = window.moebius.state;
    const spans = [...document.querySelectorAll("#text-view .text > span")];
    return { tokens, promptIds: tokens.slice(0, numPrompt).map(({ id }) => id), ids: tokens.slice(numPrompt).map(({ id }) => id), shown: spans.map((span) => span.textContent).join(""), rows };
  });
