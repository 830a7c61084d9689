// The npm package as somebody installs it: what is in the tarball, types without any others around, the example page, stopping and freeing.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session } from "./browser.mjs";

const PACKAGE = fileURLToPath(new URL("../../web/pkg", import.meta.url));
const TSC = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
const FIXTURE = fileURLToPath(new URL("../golden/fixtures/mixtral/", import.meta.url));

/** Every function of the package with its types; no others are in scope than the browser's. */
const CONSUMER = `
import init, { Engine, checkDevice, checkFiles, fileFromBlob, fileFromUrl, type ChatMessage, type Description, type ModelFiles, type Step, type Summary } from "moebius";

export async function talk(list: File[], show: (text: string) => void): Promise<Summary> {
  await init();
  const files: ModelFiles = Object.fromEntries(list.map((file) => [file.name, fileFromBlob(file)]));
  files["config.json"] ??= await fileFromUrl("https://example.org/config.json");
  await checkFiles(files, "my model");
  const engine: Engine = await Engine.load(files, { device: "auto", name: "my model" }, (event) => show(String(event.doneBytes)));
  try {
    const { model, notes }: Description = engine.describe();
    show(notes.join() + String(model.chatTemplate));
    const stop = new AbortController();
    for await (const step of engine.generate([1, 2], { maxTokens: 3, trace: true, routing: { disabled: ["0@1"] } })) show(step.text + step.routing[0]?.experts[0]?.[0]);
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
    ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "example.html", "index.d.ts", "index.js", "moebius.d.ts", "moebius.js", "moebius_bg.wasm", "moebius_bg.wasm.d.ts", "package.json"],
  );
  const readme = await readFile(join(installed, "README.md"), "utf8");
  for (const told of ["engine.free()", "signal", "engine.chat(", "example.html"]) assert.ok(readme.includes(told), told);
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
  assert.equal(programs.length, 3);
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

test("the example page lets a chosen folder write, and can be stopped", async () => {
  const session = await Session.start({ web: installed });
  try {
    const page = await session.context.newPage();
    const problems = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(`${session.origin}/example.html`);
    await page.setInputFiles("#folder", FIXTURE);
    await page.getByText("mixtral, ").waitFor({ timeout: 60_000 });
    await page.click("#write");
    await page.locator("#text span").nth(3).waitFor({ state: "attached" });
    await page.click("#stop");
    await page.locator("#write:enabled").waitFor();
    const count = await page.locator("#text span").count();
    assert.ok(count >= 4 && count <= 60, String(count));
    assert.deepEqual(problems, []);
  } finally {
    await session.close();
  }
});
