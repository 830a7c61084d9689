// What the page looks like to people who see, point and type in their own ways.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Session, answer, write } from "./browser.mjs";

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.open();
  await write(page, "Once upon a time", 6);
});
after(() => session?.close());

/** What is written before each token by the style sheet. */
const marks = () => page.$$eval("#text-view .text > .token[data-expert]", (spans) => spans.map((span) => getComputedStyle(span, "::before").content.replaceAll('"', "")));

test("experts are numbered in the text where colours are the reader's own, and elsewhere on demand", async () => {
  const { rows } = await answer(page);
  const layer = await page.evaluate(() => window.moebius.state.layer);
  const experts = rows.map((row) => String(row.experts[layer][0]));
  const unmarked = experts.map(() => "none");
  assert.deepEqual(await marks(), unmarked);
  await page.emulateMedia({ forcedColors: "active" });
  assert.deepEqual(await marks(), experts);
  await page.emulateMedia({ forcedColors: "none" });
  await page.check("#numbers");
  assert.deepEqual(await marks(), experts);
  await page.uncheck("#numbers");
  assert.deepEqual(await marks(), unmarked);
});
