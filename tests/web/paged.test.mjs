// A model whose experts do not all have room on the device writes in the page what the program writes.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Session, finished, nativeTrace, write } from "./browser.mjs";

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.open();
});
after(() => session?.close());

async function load(memory) {
  await page.selectOption("#device", "gpu");
  await page.selectOption("#expert-memory", memory);
  await page.click("#load");
  await finished(page);
  return await page.textContent("#status");
}

test("with half and with a quarter of the experts the text and its routing are the same", async () => {
  const wanted = await nativeTrace("The law of the land", 12);
  for (const [memory, slots] of [["50%", 4], ["25%", 2], ["auto", 8]]) {
    const status = await load(memory);
    if (slots === 8) assert.doesNotMatch(status, /experts of each layer/);
    else assert.match(status, new RegExp(`${slots} of 8 experts of each layer are on the device at a time, .*; the others are loaded when they are chosen`));
    const found = await write(page, "The law of the land", 12);
    assert.deepEqual(found.tokens.slice(0, found.rows.length), wanted.tokens);
    assert.deepEqual(found.rows.map(({ experts }) => experts), wanted.rows.map(({ experts }) => experts));
  }
  session.assertClean(page);
});
