// The comparison of scripts/check-smollm2.sh. It runs from a folder with node_modules/node-llama-cpp.
//
//   node check.mjs MOEBIUS DEVICE FILE.gguf WIDENED.gguf

import { execFileSync } from "node:child_process";

const PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "Water boils at 100 degrees Celsius because",
    "def fibonacci(n):\n",
];
const NUM_TOKENS = 32;

const [moebius, device, file, widened] = process.argv.slice(2);
const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
const llama = await getLlama({ gpu: false, build: "never", progressLogs: false, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: widened });
// Its threads wait for each other in a loop, which takes minutes where other work has the cores.
const context = await model.createContext({ contextSize: 256, threads: { ideal: 1, min: 1 } });
const sequence = context.getSequence();

async function ofLlamaCpp(ids) {
    await sequence.clearHistory();
    const found = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        found.push(token);
        if (found.length === NUM_TOKENS) break;
    }
    return found;
}

function ofMoebius(prompt) {
    const options = ["--device", device, "--temp", "0", "--repeat-penalty", "1", "--ignore-eos", "-n", String(NUM_TOKENS), "--json"];
    return JSON.parse(execFileSync(moebius, ["run", file, prompt, ...options], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));
}

let numOther = 0;
for (const prompt of PROMPTS) {
    const expected = await ofLlamaCpp(model.tokenize(prompt));
    const { ids, text } = ofMoebius(prompt);
    const same = ids.length === NUM_TOKENS && ids.every((id, index) => id === expected[index]);
    numOther += same ? 0 : 1;
    console.log(`${same ? "same " : "OTHER"} ${JSON.stringify(prompt + text)}`);
    if (!same) console.log(`      llama.cpp: ${JSON.stringify(model.detokenize(expected))}`);
}
console.log(`${PROMPTS.length - numOther} of ${PROMPTS.length} prompts have the same ${NUM_TOKENS} tokens`);
await llama.dispose();
process.exit(numOther === 0 ? 0 : 1);
