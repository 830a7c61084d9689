// The npm package as somebody installs it: what is in the tarball, types without any others around, the example page, stopping and freeing.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session } from "./browser.mjs";
import { Hub } from "./hub.mjs";

const PACKAGE = fileURLToPath(new URL("../../web/pkg", import.meta.url));
const TSC = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
const FIXTURE = fileURLToPath(new URL("../golden/fixtures/mixtral/", import.meta.url));

/** Every function of the package with its types; no others are in scope than the browser's. */
const CONSUMER = `
import init, { Engine, NetError, balance, checkDevice, checkFiles, compareWithReference, fetchModel, fileFromBlob, fileFromUrl, filesFromFolder, listStored, referenceMemory, removeModel, verifyModel, type Balance, type ChatMessage, type Comparison, type Description, type ModelFiles, type Step, type Summary } from "moebius";

export async function talk(list: File[], show: (text: string) => void): Promise<Summary> {
  await init();
  const files: ModelFiles = Object.fromEntries(list.map((file) => [file.name, fileFromBlob(file)]));
  files["config.json"] ??= await fileFromUrl("https://example.org/config.json");
  await checkFiles(files, "my model");
  const compared: Comparison | undefined = (await referenceMemory(files)).fits ? await compareWithReference(files) : undefined;
  show(String(compared?.prefersReference));
  const engine: Engine = await Engine.load(files, { device: "auto", name: "my model" }, (event) => show(event.type === "weights" ? String(event.doneBytes / event.totalBytes) : event.type === "kernels" ? String(event.done / event.total) : event.name + event.kind));
  try {
    const { model, notes }: Description = engine.describe();
    show(notes.join() + String(model.chatTemplate));
    const stop = new AbortController();
    for await (const step of engine.generate([1, 2], { maxTokens: 3, trace: true, routing: { disabled: [{ expert: 0, layer: 1 }, { expert: 2 }] } })) show(step.text + step.routing[0]?.experts[0]?.[0]);
    const messages: ChatMessage[] = [{ role: "user", content: "Who?" }];
    show(engine.chatPrompt(messages).text);
    const steps = engine.chat(messages, { signal: stop.signal });
    let step: IteratorResult<Step, Summary> = await steps.next();
    for (; !step.done; step = await steps.next()) for (const { part, text } of step.value.parts) if (part === "answer") show(text);
    show(String((await checkDevice((done, total) => show(String(done / total)))).passed));
    return step.value;
  } finally {
    engine.free();
  }
}
export async function open(name: string, show: (text: string) => void, signal: AbortSignal): Promise<Engine> {
  try {
    const { files, from } = await fetchModel({ url: "./model/", list: new URL("https://example.org/list.json") }, { signal, store: false });
    show(from + Object.keys(files).length + filesFromFolder([]).name);
    for (const { base, complete } of (await listStored()).models) if (!complete || (await verifyModel(base)).length > 0) await removeModel(base);
    const even: Balance = balance(Uint32Array.of(1, 2));
    show(String(even.ratio));
    return await Engine.open(name, { signal, quant: "q4_0" }, (event) => {
      switch (event.type) {
        case "fetch": case "weights": return show(String(event.doneBytes / event.totalBytes));
        case "look": case "wait": return show(event.file);
        case "note": return show(event.text);
        case "device": return show(event.name + event.why);
      }
    });
  } catch (error) {
    if (error instanceof NetError) show(error.kind + (error.hint ?? ""));
    throw error;
  }
}
// @ts-expect-error experts are objects
void ((engine: Engine) => engine.generate("a", { routing: { disabled: ["3@5"] } }));
// @ts-expect-error there is no such option
void ((engine: Engine) => engine.generate("a", { maxToken: 3 }));
// @ts-expect-error there is no such part
void ((step: Step) => step.parts[0]?.part === "other");
`;

let folder;
let installed;
let packed;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "moebius-npm-"));
  packed = JSON.parse(execFileSync("npm", ["pack", "--json", "--pack-destination", folder], { cwd: PACKAGE, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }))[0];
  installed = join(folder, "node_modules", "moebius");
  await mkdir(installed, { recursive: true });
  execFileSync("tar", ["-xzf", join(folder, packed.filename), "-C", installed, "--strip-components=1"]);
});
after(() => rm(folder, { recursive: true, force: true }));

test("the tarball has the licences, a README and an example, and nothing that nobody needs", async () => {
  assert.deepEqual(
    packed.files.map(({ path }) => path).sort(),
    ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "example.html", "files.js", "index.d.ts", "index.js", "moebius.d.ts", "moebius.js", "moebius_bg.wasm", "moebius_bg.wasm.d.ts", "net.js", "package.json", "sources.js", "store.js", "units.js"],
  );
  const readme = await readFile(join(installed, "README.md"), "utf8");
  for (const told of ["Engine.open(", "engine.free()", "signal", "engine.chat(", "example.html"]) assert.ok(readme.includes(told), told);
  console.log(`tarball: ${(packed.size / 1e6).toFixed(2)} MB`);
});

test("types check with lib es2022 and dom alone, the libraries' own included", async () => {
  await writeFile(join(folder, "consumer.ts"), CONSUMER);
  for (const [module, moduleResolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    const compilerOptions = { target: "es2022", module, moduleResolution, strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, lib: ["es2022", "dom"], types: [], skipLibCheck: false, noEmit: true };
    await writeFile(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["consumer.ts"] }));
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    try {
      execFileSync(process.execPath, [TSC, "--project", folder], { encoding: "utf8" });
    } catch (error) {
      assert.fail(`${module}: ${error.stdout}`);
    }
  }
});

test("the README's own programs are JavaScript that runs as far as it can without a page", async () => {
  const readme = await readFile(join(installed, "README.md"), "utf8");
  const programs = [...readme.matchAll(/```js\n([^]*?)```/g)].map(([, program]) => program);
  assert.equal(programs.length, 5);
  for (const [index, program] of programs.entries()) {
    const file = join(folder, `program-${index}.mjs`);
    await writeFile(file, program);
    execFileSync(process.execPath, ["--check", file]);
  }
});

test("a signal ends a text with its summary, and the engine goes on; freed, it is gone", async () => {
  const program = `
    import { openAsBlob } from "node:fs";
    import { readFile } from "node:fs/promises";
    import init, { Engine, fileFromBlob } from "moebius";
    await init({ module_or_path: await readFile(new URL(import.meta.resolve("moebius/moebius_bg.wasm"))) });
    const files = {};
    for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) files[name] = fileFromBlob(await openAsBlob(${JSON.stringify(FIXTURE)} + name));
    const engine = await Engine.load(files, { device: "cpu" });
    const run = async (steps, each = () => {}) => {
      let step = await steps.next();
      for (; !step.done; step = await steps.next()) each();
      return step.value;
    };
    const stop = new AbortController();
    let count = 0;
    const stopped = await run(engine.generate("the king", { maxTokens: 20, ignoreEnd: true, signal: stop.signal }), () => ++count === 3 && stop.abort());
    const whole = await run(engine.generate("the king", { maxTokens: 5, ignoreEnd: true }));
    const prompt = engine.chatPrompt([{ role: "user", content: "Who?" }]);
    const chat = await run(engine.chat([{ role: "user", content: "Who?" }], { maxTokens: 4, ignoreEnd: true }));
    const again = await run(engine.generate(prompt.ids, { maxTokens: 4, ignoreEnd: true, stop: prompt.stop }));
    engine.free();
    let freed;
    try { engine.describe(); } catch (error) { freed = String(error); }
    console.log(JSON.stringify({ stopped, whole, prompt, chat, again, freed }));
  `;
  await writeFile(join(folder, "run.mjs"), program);
  const { stopped, whole, prompt, chat, again, freed } = JSON.parse(execFileSync(process.execPath, ["run.mjs"], { cwd: folder, encoding: "utf8" }));
  assert.equal(stopped.stop, "cancelled");
  assert.equal(stopped.ids.length, 3);
  assert.deepEqual(whole.ids.slice(0, 3), stopped.ids);
  assert.equal(whole.stop, "max_tokens");
  assert.equal(prompt.text, "User: Who?\nAssistant:");
  assert.ok(prompt.plain && prompt.maxTokens === 128 && prompt.stop.includes("\nUser:"));
  assert.deepEqual(chat.ids, again.ids);
  assert.match(freed, /null pointer/);
});

/** What the package does in a worker of a page, with the hub that the test plays. Gives what `program` returns. */
async function inWorker(page, program) {
  return await page.evaluate(async (program) => {
    const source = `import init, * as moebius from "${location.origin}/index.js"; await init(); postMessage(await (${program})(moebius));`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
    try {
      return await new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
      });
    } finally {
      worker.terminate();
    }
  }, String(program));
}

test("a model of the hub loads by its name, is kept in a worker and not in a window, and can be stopped and verified", async () => {
  const session = await Session.start({ web: installed });
  try {
    const hub = await Hub.play(session.context, { "tiny/mixtral": FIXTURE });
    const page = await session.context.newPage();
    await page.goto(`${session.origin}/example.html`);

    const first = await inWorker(page, async ({ Engine, listStored, verifyModel }) => {
      const events = [];
      const engine = await Engine.open("tiny/mixtral", { device: "cpu" }, (event) => events.push(event));
      const ids = [];
      for await (const { id } of engine.generate("the king", { maxTokens: 5, ignoreEnd: true })) ids.push(id);
      engine.free();
      const { models } = await listStored();
      return { events, ids, models, damaged: await verifyModel(models[0].base) };
    });
    assert.deepEqual([...new Set(first.events.map(({ type }) => type))], ["look", "fetch", "device", "weights"]);
    const [fetched, loaded] = ["fetch", "weights"].map((type) => first.events.findLast((event) => event.type === type));
    assert.equal(fetched.doneBytes, fetched.totalBytes);
    assert.equal(loaded.doneBytes, loaded.totalBytes);
    assert.equal(first.events.find(({ type }) => type === "device").kind, "reference");
    assert.equal(first.ids.length, 5);
    assert.equal(first.models.length, 1);
    assert.ok(first.models[0].complete && first.models[0].base === "https://huggingface.co/tiny/mixtral/resolve/main/");
    assert.deepEqual(first.damaged, []);

    // From storage now: nothing is asked.
    hub.asked.length = 0;
    const again = await inWorker(page, async ({ Engine }) => {
      const engine = await Engine.open("tiny/mixtral", { device: "cpu" });
      const ids = [];
      for await (const { id } of engine.generate("the king", { maxTokens: 5, ignoreEnd: true })) ids.push(id);
      return ids;
    });
    assert.deepEqual(again, first.ids);
    assert.deepEqual(hub.asked, []);

    // Asked not to store, and stopped at the first weights.
    const stopped = await inWorker(page, async ({ Engine, fetchModel, removeModel }) => {
      await removeModel("https://huggingface.co/tiny/mixtral/resolve/main/");
      const stop = new AbortController();
      const options = { device: "cpu", store: false, signal: stop.signal };
      const name = await Engine.open("tiny/mixtral", options, ({ type }) => type === "device" && stop.abort()).catch(({ name }) => name);
      const early = await fetchModel("tiny/mixtral", { signal: AbortSignal.abort() }).catch(({ name }) => name);
      const { from } = await fetchModel("tiny/mixtral", { store: false });
      return { name, early, from };
    });
    assert.deepEqual(stopped, { name: "AbortError", early: "AbortError", from: "network, not stored" });

    // Outside of a worker nothing can be stored, and the model runs all the same.
    await page.fill("#model", "tiny/mixtral");
    await page.click("#open");
    await page.getByText("mixtral, ").waitFor({ timeout: 60_000 });
    await page.fill("#model", "tiny/nothing");
    await page.click("#open");
    await page.getByText("the hub has no public model tiny/nothing at main").waitFor();
  } finally {
    await session.close();
  }
});

test("the example page lets a chosen folder write, and can be stopped", async () => {
  const session = await Session.start({ web: installed });
  try {
    const page = await session.context.newPage();
    const problems = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(`${session.origin}/example.html`);
    await page.setInputFiles("#folder", FIXTURE);
    await page.getByText("mixtral, ").waitFor({ timeout: 60_000 });
    // In the page, because a small model may be done before a click from outside arrives.
    await page.evaluate(() => {
      const [text, stop] = ["text", "stop"].map((id) => document.getElementById(id));
      new MutationObserver(() => text.querySelectorAll("span").length === 4 && stop.click()).observe(text, { childList: true });
    });
    await page.click("#write");
    await page.locator("#text span").nth(3).waitFor({ state: "attached" });
    await page.locator("#write:enabled").waitFor();
    const count = await page.locator("#text span").count();
    assert.ok(count >= 4 && count <= 6, String(count));
    assert.deepEqual(problems, []);
  } finally {
    await session.close();
  }
});
