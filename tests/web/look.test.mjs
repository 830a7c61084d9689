// What the page looks like to people who see, point and type in their own ways.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Session, answer, native, write } from "./browser.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const VIEWS = ["heatmap", "experiment", "preferences", "chat", "compare", "routing", "device", "stored"];
const PHONE = { width: 390, height: 844 };

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.open(undefined, "#device=cpu&write=no");
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

/** What axe-core finds, in words. */
const violations = (page) =>
  page.evaluate(async () => {
    const { violations } = await globalThis.axe.run();
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)}: ${failureSummary}`));
  });

test("axe-core finds nothing on any tab, in either theme", async () => {
  await page.addScriptTag({ path: AXE });
  await page.locator("#sampling").evaluate((details) => (details.open = true));
  await page.locator("#text-view .text > span").nth(3).hover();
  await page.waitForSelector("ol.next li code");
  for (const theme of ["light", "dark"]) {
    await page.evaluate((theme) => (document.documentElement.dataset.theme = theme), theme);
    for (const view of VIEWS) {
      await page.click(`[data-view=${view}]`);
      await page.waitForTimeout(100);
      assert.deepEqual(await violations(page), [], `${view}, ${theme}`);
    }
  }
  assert.deepEqual(await page.$$eval("[role=tab]", (tabs) => tabs.map((tab) => tab.dataset.view).sort()), [...VIEWS].sort(), "every tab was looked at");
});

test("the arrow keys, Home and End go through the tabs", async () => {
  const open = () => page.getAttribute("[role=tab][aria-selected=true]", "data-view");
  const all = await page.$$eval("[role=tab]", (tabs) => tabs.map((tab) => tab.dataset.view));
  await page.focus("[role=tab][aria-selected=true]");
  for (const [key, wanted] of [["Home", all[0]], ["End", all.at(-1)], ["ArrowRight", all[0]], ["ArrowLeft", all.at(-1)], ["ArrowLeft", all.at(-2)]]) {
    await page.keyboard.press(key);
    assert.equal(await open(), wanted, key);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.view), wanted);
  }
});

test("on a phone everything that is pressed is at least 44 pixels large, in every view", async () => {
  await page.setViewportSize(PHONE);
  for (const view of VIEWS) {
    await page.click(`[data-view=${view}]`);
    const small = await page.$$eval("button:not(.term), select, [role=tab], input, summary, label.check", (nodes) =>
      nodes
        .filter((node) => node.checkVisibility() && !node.closest("[hidden]"))
        // A checkbox is pressed by its label.
        .filter((node) => node.type !== "checkbox")
        .map((node) => ({ what: node.outerHTML.slice(0, 100), width: node.getBoundingClientRect().width, height: node.getBoundingClientRect().height }))
        .filter(({ width, height }) => width > 0 && (width < 44 || height < 44)),
    );
    assert.deepEqual(small, [], view);
  }
});

test("on a phone what is said of a token is in view wherever the token is, and goes away again", async () => {
  await page.setViewportSize(PHONE);
  const last = page.locator("#text-view .text > span").nth(4);
  await last.scrollIntoViewIfNeeded();
  await last.click();
  await page.waitForSelector("ol.next li code");
  const { top, bottom } = await page.locator("#text-view .detail").evaluate((node) => node.getBoundingClientRect().toJSON());
  assert.ok(top >= 0 && bottom <= PHONE.height, `${top} to ${bottom}`);
  assert.ok(await page.locator("#text-view .detail .layers li").first().isVisible());
  await page.getByRole("button", { name: "Close the details" }).click();
  assert.equal(await page.locator("#text-view .layers").count(), 0);
});

test("on a phone what is pressed beside the details comes into view, and the details go", async () => {
  await page.setViewportSize(PHONE);
  await page.click("[data-view=heatmap]");
  await page.locator("#text-view .text > span").nth(4).click();
  await page.waitForSelector("#text-view .detail.open");
  await page.click("#try-experiment");
  assert.equal(await page.locator("#text-view .detail.open").count(), 0);
  const { top } = await page.locator("#tabs").evaluate((node) => node.getBoundingClientRect().toJSON());
  assert.ok(top >= 0 && top < PHONE.height / 2, `the tabs begin at ${top}`);
});

test("Compare says that both are written with a changed routing", async () => {
  await page.click("[data-view=compare]");
  assert.equal(await page.locator("#view .notice").isVisible(), false);
  await page.evaluate(() => (window.moebius.state.routing = { disabled: [{ expert: 4 }, { expert: 2 }] }));
  await page.click("[data-view=heatmap]");
  await page.click("[data-view=compare]");
  assert.equal(await page.locator("#view .notice").textContent(), "Both are written with the changed routing: without experts 2, 4.");
  await page.evaluate(() => (window.moebius.state.routing = { disabled: [] }));
});

test("axe-core finds nothing in the report of a trace, in either theme, on a desk and on a phone", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moebius-report-"));
  const report = await session.context.newPage();
  try {
    const file = join(folder, "trace.jsonl");
    const html = join(folder, "report.html");
    const texts = { law: "The court held that the defendant was liable.", tale: "Once upon a time there was a king.", code: "def parse(self, line):\n    return line" };
    for (const [name, text] of Object.entries(texts)) await writeFile(join(folder, `${name}.txt`), text);
    native("trace", "--dir", folder, "--device", "cpu", "--out", file);
    native("trace-report", file, "--html", html);
    await report.setContent(await readFile(html, "utf8"));
    await report.addScriptTag({ path: AXE });
    // What is folded is part of it.
    await report.$$eval("details", (all) => all.forEach((details) => (details.open = true)));
    for (const colorScheme of ["light", "dark"]) {
      await report.emulateMedia({ colorScheme });
      for (const size of [{ width: 1280, height: 900 }, PHONE]) {
        await report.setViewportSize(size);
        assert.deepEqual(await violations(report), [], `${colorScheme}, ${size.width}`);
      }
    }
  } finally {
    await report.close();
    await rm(folder, { recursive: true, force: true });
  }
});

test("nothing went elsewhere or into the console", () => session.assertClean(page));
