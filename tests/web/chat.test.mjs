// A conversation in the page: the prompt is that of the program, thinking is folded and does not go back, an answer can be stopped.

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session, finished } from "./browser.mjs";

const FIXTURES = fileURLToPath(new URL("../golden/fixtures/", import.meta.url));
/** As reasoning models have it: thinking between marks, which the template opens, and leaves out of earlier turns. */
const TEMPLATE = `{%- for message in messages -%}
<|{{ message.role }}|>{% if message.role == 'assistant' %}{{ message.content.split('</think>')[-1] }}{% else %}{{ message.content }}{% endif %}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|><think>{% endif %}`;

let session;
let page;
let folder;
/** Thinking and answer to a question, to compare with what comes when the device is lost meanwhile. */
let broken;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "moebius-chat-"));
  session = await Session.start();
  page = await session.openWithWorker(`
    const tell = postMessage.bind(globalThis);
    const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...all) {
      return (globalThis.lastDevice = await request.apply(this, all));
    };
    globalThis.postMessage = (message) => {
      if (message.event === "prompt") globalThis.lastPrompt = message.data.tokens.map(({ text }) => text).join("");
      if (message.result?.prefillTokens) globalThis.lastPrefill = message.result.prefillTokens;
      tell(message);
    };
  `);
});
after(async () => {
  await session?.close();
  await rm(folder, { recursive: true, force: true });
});

const worker = () => page.workers()[0];
const lastPrompt = () => worker().evaluate(() => globalThis.lastPrompt);

async function say(text) {
  await page.getByLabel("Your message").fill(text);
  await page.getByLabel("Your message").press("Enter");
  await finished(page);
}

/** Says something, and ends the answer after some tokens. */
async function begin(text) {
  const before = await page.evaluate(() => window.moebius.state.answers);
  await page.getByLabel("Your message").fill(text);
  await page.getByLabel("Your message").press("Enter");
  await page.waitForFunction((before) => window.moebius.state.answers > before && window.moebius.state.tokens.length - window.moebius.state.numPrompt >= 8, before);
  await page.locator("#view").getByRole("button", { name: "Stop" }).click();
  await finished(page);
}

test("a model without a template says so, and gets lines of User: and Assistant:", async () => {
  await page.click("[data-view=chat]");
  await page.getByText("This model has no chat template").waitFor();
  await page.getByText("What the model is told first").click();
  await page.getByLabel("System message").fill("A tale.");
  await say("Tell me of the king.");
  assert.match(await lastPrompt(), /A tale\.\n\nUser: Tell me of the king\.\nAssistant:$/);
  const [answer] = await page.locator(".chat .assistant > .said").allTextContents();
  assert.ok(answer.length > 0 && !answer.includes("User:"), answer);
  assert.equal(await page.locator(".chat .thinking:visible").count(), 0);
  const first = await page.evaluate(() => ({ rows: window.moebius.state.rows, numPrompt: window.moebius.state.numPrompt }));
  await say("And then?");
  assert.ok((await lastPrompt()).endsWith(`A tale.\n\nUser: Tell me of the king.\nAssistant: ${answer}\nUser: And then?\nAssistant:`), await lastPrompt());
  // The colours are those of the conversation.
  const { tokens, rows } = await page.evaluate(() => window.moebius.state);
  assert.equal(rows.length, tokens.length - 1);
  // What was said before is not run again, and its routing is that of the turn before.
  const numPrompt = await page.evaluate(() => window.moebius.state.numPrompt);
  const prefill = await worker().evaluate(() => globalThis.lastPrefill);
  const reused = numPrompt - prefill;
  // The prompt of the first turn at least; of a drawn answer as much as the tokenizer cuts in the same way. Its last token may join with what follows.
  assert.ok(reused >= first.numPrompt - 1, `${prefill} of ${numPrompt} tokens were run, the first turn had ${first.numPrompt}`);
  assert.deepEqual(rows.slice(0, reused), first.rows.slice(0, reused));
});

test("an answer can be stopped, and what was said so far stays", async () => {
  await begin("Go on.");
  assert.equal(await page.locator(".chat .assistant").count(), 3);
  const last = page.locator(".chat .assistant").last();
  assert.match(await last.textContent(), /Stopped\./);
  assert.ok((await last.locator("> .said").textContent()).length > 0);
});

test("a new conversation begins with nothing", async () => {
  await page.getByRole("button", { name: "New conversation" }).click();
  assert.equal(await page.locator(".chat li").count(), 0);
  await say("Who?");
  assert.ok((await lastPrompt()).endsWith("A tale.\n\nUser: Who?\nAssistant:"));
});

test("a model with a template is asked through it, its thinking is folded, and only the answer goes back", async () => {
  await cp(join(FIXTURES, "qwen3_moe"), folder, { recursive: true });
  await writeFile(join(folder, "chat_template.jinja"), TEMPLATE);
  // The fourth token that this small random model writes after the question becomes the mark that ends the thinking.
  const tokenizer = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
  const { X, ...vocab } = tokenizer.model.vocab;
  tokenizer.model.vocab = { ...vocab, "</think>": X };
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  await page.selectOption("#model-kind", "folder");
  await page.setInputFiles("#model-folder", folder);
  await page.click("#load");
  await finished(page);
  await page.getByText("The conversation is written as the model's chat template wants it").waitFor();
  assert.equal(await page.locator(".chat li").count(), 0, "another model, another conversation");
  await page.getByLabel("System message").fill("");
  await page.evaluate(() => Object.assign(document.getElementById("temperature"), { value: "0" }));
  await page.evaluate(() => Object.assign(document.getElementById("repeatPenalty"), { value: "1" }));
  await begin("Who was it?");
  const answer = page.locator(".chat .assistant").first();
  assert.ok((await lastPrompt()).endsWith("<|user|>Who was it?<|assistant|><think>"), await lastPrompt());
  const folded = answer.locator("details.thinking");
  assert.equal(await folded.evaluate((details) => details.open), false);
  assert.equal(await folded.locator(".said").isVisible(), false);
  await folded.locator("summary").click();
  const [thinking, said] = [await folded.locator(".said").textContent(), await answer.locator("> .said").textContent()];
  assert.match(thinking, /^le/);
  assert.ok(said.length > 0);
  broken = { thinking, said };
  await begin("And?");
  assert.ok((await lastPrompt()).endsWith(`<|user|>Who was it?<|assistant|>${said}<|user|>And?<|assistant|><think>`), await lastPrompt());
});

test("thinking that a lost device broke off is thinking still when it goes on", async () => {
  await worker().evaluate(() => {
    const tell = globalThis.postMessage;
    let tokens = 0;
    globalThis.postMessage = (message) => {
      tell(message);
      // The third token is thinking yet; the device is the one that the engine got last.
      if (message.event === "token" && ++tokens === 2) globalThis.lastDevice.destroy();
    };
  });
  await page.getByRole("button", { name: "New conversation" }).click();
  await begin("Who was it?");
  assert.match(await page.textContent("#notice"), /device was lost after \d+ tokens/);
  const [thinking, said] = [await page.locator(".chat .thinking .said").textContent(), await page.locator(".chat .assistant > .said").textContent()];
  assert.equal(thinking, broken.thinking);
  assert.ok(said.startsWith(broken.said) || broken.said.startsWith(said), `${said} beside ${broken.said}`);
});

test("a template that refuses a conversation is said, and the question comes back", async () => {
  await writeFile(join(folder, "chat_template.jinja"), "{{ raise_exception('Only questions about kings!') }}");
  await page.setInputFiles("#model-folder", folder);
  await page.click("#load");
  await finished(page);
  await say("Who are you?");
  assert.match(await page.textContent("#notice"), /chat template: .*Only questions about kings!/);
  assert.equal(await page.getByLabel("Your message").inputValue(), "Who are you?");
  assert.equal(await page.locator(".chat li").count(), 0);
});
