// What happens without a GPU, when it goes away, and when nothing can be stored.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Session, finished, write } from "./browser.mjs";

const expected = JSON.parse(await readFile(new URL("../../examples/models/demo/expected.json", import.meta.url), "utf8"));

test("a device that is destroyed mid-answer is replaced, and the text is the same", async () => {
  const session = await Session.start();
  try {
    // Nothing in the page destroys a device: the test takes hold of it where the browser hands it out.
    const page = await session.openWithWorker(
      `
        let first;
        const request = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = async function (...all) {
          const device = await request.apply(this, all);
          first ??= device;
          return device;
        };
        const tell = postMessage.bind(globalThis);
        let tokens = 0;
        globalThis.postMessage = (message) => {
          tell(message);
          if (message.event === "token" && ++tokens === 4) first.destroy();
        };
      `,
    );
    const { prompt, greedy, ids } = expected[0];
    const found = await write(page, prompt, 10);
    assert.match(await page.textContent("#notice"), /device was lost after \d+ tokens/);
    assert.deepEqual(found.ids, greedy.slice(0, 10));
    assert.equal(found.rows.length, ids.length + 9);
  } finally {
    await session.close();
  }
});

test("without WebGPU the demo runs on the CPU reference, and the page says so", async () => {
  const session = await Session.start();
  try {
    const page = await session.openWithWorker(`Object.defineProperty(Object.getPrototypeOf(navigator), "gpu", { get: () => undefined });`);
    const { prompt, greedy } = expected[0];
    assert.match(await page.textContent("#notice"), /no WebGPU adapter/);
    assert.deepEqual((await write(page, prompt, 6)).ids, greedy.slice(0, 6));
    session.assertClean(page);
  } finally {
    await session.close();
  }
});

test("a model that the browser has no room for is read from the network, and nothing of it stays", async () => {
  const session = await Session.start();
  try {
    const page = await session.openWithWorker(`
      const write = FileSystemSyncAccessHandle.prototype.write;
      FileSystemSyncAccessHandle.prototype.write = function (bytes, place) {
        if (place.at + bytes.length > 3e6) throw new DOMException("full", "QuotaExceededError");
        return write.call(this, bytes, place);
      };
    `);
    assert.match(await page.textContent("#notice"), /Not stored/);
    const { prompt, greedy } = expected[0];
    assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
    await page.click("[data-view=stored]");
    await page.getByText("No model is stored").waitFor();
    session.assertClean(page);
  } finally {
    await session.close();
  }
});

test("without storage the model is read from the network", async () => {
  const session = await Session.start();
  try {
    const page = await session.openWithWorker(`navigator.storage.getDirectory = async () => { throw new DOMException("private", "SecurityError"); };`);
    assert.match(await page.textContent("#status"), /Ready .* from network, not stored/);
    assert.match(await page.textContent("#notice"), /This window stores nothing, as private windows do/);
    const { prompt, greedy } = expected[0];
    assert.deepEqual((await write(page, prompt, 4)).ids, greedy.slice(0, 4));
    session.assertClean(page);
  } finally {
    await session.close();
  }
});

test("a device that grants no more than WebGPU's defaults, tuned as a real GPU, computes the same", async () => {
  const session = await Session.start();
  try {
    const page = await session.openWithWorker(`
      const DEFAULTS = {
        maxStorageBufferBindingSize: 134217728, maxBufferSize: 268435456, maxComputeWorkgroupStorageSize: 16384,
        maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupSizeX: 256, maxStorageBuffersPerShaderStage: 8,
      };
      const limits = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "limits").get;
      Object.defineProperty(GPUAdapter.prototype, "limits", {
        get() {
          return new Proxy(limits.call(this), { get: (all, name) => DEFAULTS[name] ?? all[name] });
        },
      });
      Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
    `);
    const { device } = await page.evaluate(() => window.moebius.state.info);
    assert.equal(device.kind, "unknown");
    assert.equal(device.limits.maxBindingBytes, 134217728);
    const { prompt, greedy } = expected[0];
    assert.deepEqual((await write(page, prompt, 12)).ids, greedy.slice(0, 12));
    await page.click("[data-view=device]");
    await page.getByRole("button", { name: "Check this device" }).click();
    // Compiling what is meant for real GPUs takes a software device minutes.
    await finished(page, 1_800_000);
    assert.match(await page.textContent("#view [role=status]"), /All \d+ cases passed/, await page.textContent("#view"));
    session.assertClean(page);
  } finally {
    await session.close();
  }
});
