// Serves the page on this machine: web/ at /, the bundled models at /models/. Answers range requests; sends nothing anywhere.
//
//   usage: node scripts/web-serve.mjs [PORT]

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** The file that a path of the address means, or `undefined` outside of what is served. */
function fileOf(pathname) {
  let path;
  try {
    path = normalize(decodeURIComponent(pathname));
  } catch {
    return undefined;
  }
  if (path.includes("\0") || path.split(sep).includes("..")) return undefined;
  if (path.endsWith(sep)) path += "index.html";
  return path.startsWith(join(sep, "models", sep)) ? join(ROOT, "examples", path) : join(ROOT, "web", path);
}

/** `[start, end]` of `bytes=start-end`; `undefined` without a range, `null` for one that cannot be. */
function rangeOf(header, size) {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? "");
  if (!match) return undefined;
  const start = Number(match[1]);
  const end = match[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  return start <= end && start < size ? [start, end] : null;
}

async function answer(request, response) {
  const path = fileOf(new URL(request.url, "http://localhost").pathname);
  const info = path && (await stat(path).catch(() => undefined));
  if (!info?.isFile() || !["GET", "HEAD"].includes(request.method)) {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("not found\n");
    return;
  }
  const headers = {
    "Content-Type": TYPES[extname(path)] ?? "application/octet-stream",
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
  };
  const range = rangeOf(request.headers.range, info.size);
  if (range === null) {
    response.writeHead(416, { "Content-Range": `bytes */${info.size}` }).end();
    return;
  }
  const [start, end] = range ?? [0, info.size - 1];
  headers["Content-Length"] = info.size === 0 ? 0 : end - start + 1;
  if (range) headers["Content-Range"] = `bytes ${start}-${end}/${info.size}`;
  response.writeHead(range ? 206 : 200, headers);
  if (request.method === "HEAD" || info.size === 0) {
    response.end();
    return;
  }
  createReadStream(path, { start, end })
    .on("error", () => response.destroy())
    .pipe(response);
}

/** Listens on this machine only; port 0 takes a free one. Resolves to the server. */
export function serve(port) {
  const server = createServer((request, response) => void answer(request, response));
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const wanted = process.argv[2] ?? "8080";
  if (!/^\d{1,5}$/.test(wanted) || Number(wanted) > 65535) {
    console.error(`error: PORT=${wanted}: expected a number from 0 to 65535`);
    process.exit(2);
  }
  const server = await serve(Number(wanted)).catch((error) => {
    console.error(`error: ${error.message}\n\nhint: choose another one: make web-serve PORT=8081`);
    process.exit(1);
  });
  console.error(`the page: http://localhost:${server.address().port}/`);
}
