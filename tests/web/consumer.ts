import { openAsBlob } from "node:fs";
import { readFile } from "node:fs/promises";
import init, { Engine, fileFromBlob, type ModelFiles } from "moebius";

await init({ module_or_path: await readFile(new URL(import.meta.resolve("moebius/moebius_bg.wasm"))) });
const files: ModelFiles = {};
for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) files[name] = fileFromBlob(await openAsBlob(`${process.argv[2]}/${name}`));
const engine = await Engine.load(files, { device: "cpu", kvCache: "f16" });
for await (const step of engine.generate("The king said", { maxTokens: 3, trace: true, routing: { expertsPerToken: 2, disabled: [{ expert: 0, layer: 1 }] } })) console.log(step.text, step.routing.at(-1)?.experts[0]);
