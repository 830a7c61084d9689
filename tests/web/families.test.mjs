// Checkpoints of other families in the browser, on the GPU: the greedy text of transformers, which the native tests compare with, too.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session } from "./browser.mjs";

const FIXTURES = new URL("../golden/fixtures/", import.meta.url);
const NEW_TOKENS = 16;

let session;
let page;
before(async () => {
  session = await Session.start();
  page = await session.open();
});
after(() => session?.close());

for (const family of ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "llama4_text"]) {
  test(`${family} continues token for token`, async () => {
    const folder = new URL(`${family}/`, FIXTURES);
    const { prompts, greedy } = JSON.parse(await readFile(new URL("expected.json", folder), "utf8"));
    const names = (await readdir(folder)).filter((name) => !name.startsWith("expected"));
    await page.evaluate(() => {
      document.getElementById("fixture")?.remove();
      document.body.append(Object.assign(document.createElement("input"), { type: "file", multiple: true, id: "fixture" }));
    });
    await page.setInputFiles("#fixture", names.map((name) => fileURLToPath(new URL(name, folder))));
    for (const { prompt, ids } of greedy) {
      const found = await page.evaluate(
        async ({ promptIds, maxTokens }) => {
          const { default: init, Engine, fileFromBlob } = await import("/pkg/index.js");
          await init();
          const files = Object.fromEntries([...document.getElementById("fixture").files].map((file) => [file.name, fileFromBlob(file)]));
          const engine = await Engine.load(files, { quant: "f32" });
          const ids = [];
          for await (const { id } of engine.generate(promptIds, { maxTokens, ignoreEnd: true })) ids.push(id);
          const { kind } = engine.describe().device;
          engine.free();
          return { kind, ids };
        },
        { promptIds: prompts[prompt].input_ids, maxTokens: NEW_TOKENS },
      );
      assert.notEqual(found.kind, "reference");
      assert.deepEqual(found.ids, ids.slice(0, NEW_TOKENS), `prompt ${prompt}`);
    }
  });
}

test("nothing went elsewhere or into the console", () => session.assertClean(page));
