// The steps of scripts/compare-llama-cpp.sh that are done in JavaScript. It runs from a folder with node_modules/node-llama-cpp.
//
//   node compare.mjs request EXPECTED.json PROMPT-TOKENS NEW-TOKENS REPETITIONS FOLDER   what is asked of every engine
//   node compare.mjs measure MODEL.gguf vulkan|cpu REQUEST.json                          llama.cpp's figures as JSON
//   node compare.mjs table FOLDER                                                        one table of all figures

import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

const json = path => JSON.parse(readFileSync(path, "utf8"));
const median = values => values.toSorted((a, b) => a - b)[values.length >> 1];

function request(expectedPath, numPrompt, numNew, repetitions, folder) {
    const prompts = json(expectedPath).map(({ ids, greedy }) => ({ ids, greedy }));
    prompts.forEach(({ ids }, index) => writeFileSync(join(folder, `prompt-${index}.json`), JSON.stringify(ids)));
    // Any tokens will do; the ids beyond the three special ones of the bundled model, in an order without a pattern.
    const tokens = Array.from({ length: numPrompt }, (_, index) => 3 + ((index * 2654435761) >>> 0) % 4093);
    const content = { prompts, tokens, numNew, repetitions, threads: availableParallelism() };
    writeFileSync(join(folder, "request.json"), JSON.stringify(content));
}

async function measure(modelPath, backend, requestPath) {
    const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
    const { prompts, tokens, numNew, repetitions, threads } = json(requestPath);
    const gpu = backend === "cpu" ? false : backend;
    const llama = await getLlama({ gpu, build: "never", progressLogs: false, logLevel: LlamaLogLevel.error });
    const devices = gpu ? await llama.getGpuDeviceNames() : ["CPU"];
    if ((llama.gpu || "cpu") !== backend || devices.length === 0) {
        throw new Error(`asked for ${backend}, but llama.cpp runs on ${llama.gpu || "the CPU"} with devices [${devices}]`);
    }
    const model = await llama.loadModel({ modelPath, gpuLayers: gpu ? "max" : 0 });
    const contextSize = Math.max(tokens.length, numNew + 1, 128) + 64;
    const context = await model.createContext({ contextSize, batchSize: 512, threads: { ideal: threads, min: threads } });
    const sequence = context.getSequence();
    const options = { temperature: 0, yieldEogToken: true };

    const greedy = async ({ ids, greedy }) => {
        await sequence.clearHistory();
        const found = [];
        for await (const token of sequence.evaluate(ids, options)) {
            found.push(token);
            if (found.length === greedy.length) break;
        }
        return found;
    };
    const prefill = async () => {
        await sequence.clearHistory();
        const start = performance.now();
        await sequence.evaluateWithoutGeneratingNewTokens(tokens);
        return tokens.length / ((performance.now() - start) / 1000);
    };
    // The prompt brings the first token, and the clock starts with it.
    const decode = async () => {
        await sequence.clearHistory();
        let start;
        let count = 0;
        for await (const _ of sequence.evaluate(tokens.slice(0, 1), options)) {
            if (count === 0) start = performance.now();
            if (count++ === numNew) break;
        }
        if (count !== numNew + 1) throw new Error(`llama.cpp stopped after ${count} of ${numNew + 1} tokens`);
        return numNew / ((performance.now() - start) / 1000);
    };

    const first = { prefill: await prefill(), decode: await decode() };
    const samples = { prefill: [], decode: [] };
    for (let i = 0; i < repetitions; i++) {
        samples.prefill.push(await prefill());
        samples.decode.push(await decode());
    }
    const texts = [];
    for (const prompt of prompts) texts.push(await greedy(prompt));
    console.log(JSON.stringify({ devices, layersOnDevice: model.gpuLayers, first, samples, texts }));
    process.exit(0);
}

function table(folder) {
    const { prompts, tokens, numNew } = json(join(folder, "request.json"));
    const agreement = texts => {
        const same = texts.filter((ids, index) => JSON.stringify(ids) === JSON.stringify(prompts[index].greedy)).length;
        return `${same} of ${prompts.length}`;
    };
    const turns = name => [1, 2, 3].map(turn => json(join(folder, `${name}-${turn}.json`)));
    const ours = turns("moebius");
    const speed = name => median(ours.flatMap(turn => turn.tests.find(test => test.name === name).samples));
    const texts = readFileSync(join(folder, "moebius-texts.json"), "utf8").trim().split("\n").map(line => JSON.parse(line));
    const moebius = { prefill: speed(`pp${tokens.length}`), decode: speed(`tg${numNew}`) };
    const theirs = name => {
        const of = turns(name);
        const [prefill, decode] = ["prefill", "decode"].map(what => median(of.flatMap(turn => turn.samples[what])));
        return { ...of[0], prefill, decode };
    };
    const [vulkan, cpu] = [theirs("vulkan"), theirs("cpu")];
    const digits = value => value.toFixed(value < 10 ? 2 : 1);
    const row = (...cells) => console.log(`| ${cells.join(" | ")} |`);
    row("engine", "device", `pp${tokens.length}, tokens/s`, `tg${numNew}, tokens/s`, "greedy texts as stored");
    row("---", "---", "---", "---", "---");
    row("moebius", ours[0].device.name, digits(moebius.prefill), digits(moebius.decode), agreement(texts.map(text => text.ids)));
    row("llama.cpp, Vulkan", vulkan.devices.join(", "), digits(vulkan.prefill), digits(vulkan.decode), agreement(vulkan.texts));
    row("llama.cpp, Vulkan, first run", "", digits(vulkan.first.prefill), digits(vulkan.first.decode), "");
    row("llama.cpp, CPU", "", digits(cpu.prefill), digits(cpu.decode), agreement(cpu.texts));
    const ratio = (ours, theirs) => `${digits(ours / theirs)} x`;
    row("moebius over llama.cpp, Vulkan", "", ratio(moebius.prefill, vulkan.prefill), ratio(moebius.decode, vulkan.decode), "");
}

const [step, ...args] = process.argv.slice(2);
if (step === "request") {
    const [expected, numPrompt, numNew, repetitions, folder] = args;
    request(expected, Number(numPrompt), Number(numNew), Number(repetitions), folder);
} else if (step === "measure") {
    await measure(...args);
} else {
    table(...args);
}
