// The server of the page: a port that cannot be is an error in words.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const SERVER = fileURLToPath(new URL("../../scripts/web-serve.mjs", import.meta.url));
const serveAt = (port) => spawnSync(process.execPath, [SERVER, String(port)], { encoding: "utf8", timeout: 20_000 });

test("a port that is no port is refused", () => {
  for (const port of ["abc", "-1", "65536", "80.5"]) {
    const { status, stderr } = serveAt(port);
    assert.equal(status, 2, stderr);
    assert.equal(stderr, `error: PORT=${port}: expected a number from 0 to 65535\n`);
  }
});

test("a port that is taken is refused", async () => {
  const other = createServer();
  await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
  const { port } = other.address();
  const { status, stderr } = serveAt(port);
  other.close();
  assert.equal(status, 1, stderr);
  assert.match(stderr, new RegExp(`^error: .*EADDRINUSE.*:${port}\\n\\nhint: `));
});
