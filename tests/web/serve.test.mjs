// The server of the page: a port that cannot be is an error in words, files are compressed, and nothing is sent that the browser has.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { request as get } from "node:http";
import { createServer } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { serve } from "../../scripts/web-serve.mjs";

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

/** Node's own fetch would undo the encoding. */
const ask = (server, path, headers = {}, method = "GET") =>
  new Promise((resolve, reject) => {
    const request = get({ port: server.address().port, path, headers, method }, async (response) => {
      const pieces = [];
      for await (const piece of response) pieces.push(piece);
      resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) });
    });
    request.on("error", reject).end();
  });

test("files are compressed as the browser asks, and not sent again", async () => {
  const server = await serve(0);
  try {
    const plain = await ask(server, "/app.js");
    assert.equal(plain.headers["content-encoding"], undefined);
    for (const [accepts, encoding, undo] of [["gzip, deflate, br", "br", brotliDecompressSync], ["gzip", "gzip", gunzipSync], ["br;q=0, gzip;q=0.5", "gzip", gunzipSync]]) {
      const small = await ask(server, "/app.js", { "Accept-Encoding": accepts });
      assert.equal(small.headers["content-encoding"], encoding);
      assert.equal(small.headers.vary, "Accept-Encoding");
      assert.equal(Number(small.headers["content-length"]), small.body.length);
      assert.ok(small.body.length < plain.body.length);
      assert.deepEqual(undo(small.body), plain.body);
      assert.notEqual(small.headers.etag, plain.headers.etag);
      const again = await ask(server, "/app.js", { "Accept-Encoding": accepts, "If-None-Match": `"other", W/${small.headers.etag}` });
      assert.deepEqual([again.status, again.body.length], [304, 0]);
    }
    assert.equal((await ask(server, "/app.js", { "Accept-Encoding": "identity;q=1, br;q=0" })).headers["content-encoding"], undefined);
    const weights = await ask(server, "/models/demo/model.safetensors", { "Accept-Encoding": "br" }, "HEAD");
    assert.deepEqual([weights.headers["content-encoding"], weights.headers["content-length"], weights.body.length], [undefined, "34525920", 0]);
  } finally {
    server.close();
  }
});

test("a part of a file comes as it is, and only of the version that was begun", async () => {
  const server = await serve(0);
  try {
    const whole = await ask(server, "/app.js");
    const part = await ask(server, "/app.js", { Range: "bytes=3-9", "Accept-Encoding": "br" });
    assert.deepEqual([part.status, part.headers["content-range"]], [206, `bytes 3-9/${whole.body.length}`]);
    assert.deepEqual(part.body, whole.body.subarray(3, 10));
    assert.equal((await ask(server, "/app.js", { Range: "bytes=3-9", "If-Range": whole.headers.etag })).status, 206);
    const changed = await ask(server, "/app.js", { Range: "bytes=3-9", "If-Range": '"older"' });
    assert.deepEqual([changed.status, changed.body.length], [200, whole.body.length]);
    assert.equal((await ask(server, "/app.js", { Range: "bytes=9999999-" })).status, 416);
  } finally {
    server.close();
  }
});
