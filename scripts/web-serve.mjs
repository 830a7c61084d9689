// Serves the page on this machine: web/ at /, the bundled models at /models/. Answers range requests, compresses, and sends ETags, so that a
// file that a browser has is not sent again. Sends nothing anywhere.
//
//   usage: node scripts/web-serve.mjs [PORT]

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import { WEB, shell } from "./web-shell.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};
/** Larger files are weights, which do not get smaller. */
const MAX_COMPRESSED_BYTES = 32 << 20;
/** Quality 9 is within some percent of 11, in a tenth of the time. */
const ENCODINGS = {
  br: (bytes) => promisify(brotliCompress)(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } }),
  gzip: (bytes) => promisify(gzip)(bytes, { level: 9 }),
};

/** The file that a path of the address means, or `undefined` outside of what is served. */
function fileOf(pathname, web) {
  let path;
  try {
    path = normalize(decodeURIComponent(pathname));
  } catch {
    return undefined;
  }
  if (path.includes("\0") || path.split(sep).includes("..")) return undefined;
  if (path.endsWith(sep)) path += "index.html";
  return path.startsWith(join(sep, "models", sep)) ? join(ROOT, "examples", path) : join(web, path);
}

/** `[start, end]` of `bytes=start-end`; `undefined` without a range, `null` for one that cannot be. */
function rangeOf(header, size) {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? "");
  if (!match) return undefined;
  const start = Number(match[1]);
  const end = match[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  return start <= end && start < size ? [start, end] : null;
}

/** The encoding that the browser wants most, of those we have. */
function encodingOf(header = "") {
  const weights = header.split(",").map((item) => {
    const [name, weight] = item.trim().split(/\s*;\s*q=/);
    return [name.toLowerCase(), weight === undefined ? 1 : Number(weight)];
  });
  return Object.keys(ENCODINGS).find((name) => weights.some(([wanted, weight]) => wanted === name && weight > 0));
}

const compressed = new Map();

/** The file in that encoding, made once per version of the file. */
function compress(path, tag, encoding) {
  const key = `${encoding} ${path}`;
  if (compressed.get(key)?.tag !== tag) {
    const bytes = readFile(path).then(ENCODINGS[encoding]);
    bytes.catch(() => compressed.delete(key));
    compressed.set(key, { tag, bytes });
  }
  return compressed.get(key).bytes;
}

async function answer(request, response, web) {
  const path = fileOf(new URL(request.url, "http://localhost").pathname, web);
  if (path === join(web, "pkg", "shell.js") && ["GET", "HEAD"].includes(request.method)) {
    // Files may have been edited since the page was built.
    sendText(request, response, await shell(web));
    return;
  }
  const info = path && (await stat(path).catch(() => undefined));
  if (!info?.isFile() || !["GET", "HEAD"].includes(request.method)) {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("not found\n");
    return;
  }
  await sendFile(request, response, path, info);
}

async function sendFile(request, response, path, { size, mtimeMs }) {
  const type = TYPES[extname(path)];
  const version = `${size.toString(36)}-${Math.trunc(mtimeMs).toString(36)}`;
  const asked = request.headers.range;
  const encoding = type && size > 0 && size <= MAX_COMPRESSED_BYTES && !asked ? encodingOf(request.headers["accept-encoding"]) : undefined;
  const tag = `"${version}${encoding ? `-${encoding}` : ""}"`;
  const headers = {
    "Content-Type": type ?? "application/octet-stream",
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    ETag: tag,
    ...(type && { Vary: "Accept-Encoding" }),
  };
  if (hasIt(request, tag)) {
    response.writeHead(304, headers).end();
    return;
  }
  if (encoding) {
    const bytes = await compress(path, tag, encoding);
    response.writeHead(200, { ...headers, "Content-Encoding": encoding, "Content-Length": bytes.length }).end(request.method === "HEAD" ? undefined : bytes);
    return;
  }
  // A part of another version than the browser has the beginning of is of no use.
  const condition = request.headers["if-range"];
  const range = condition === undefined || condition === tag ? rangeOf(asked, size) : undefined;
  if (range === null) {
    response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
    return;
  }
  const [start, end] = range ?? [0, size - 1];
  headers["Content-Length"] = size === 0 ? 0 : end - start + 1;
  if (range) headers["Content-Range"] = `bytes ${start}-${end}/${size}`;
  response.writeHead(range ? 206 : 200, headers);
  if (request.method === "HEAD" || size === 0) {
    response.end();
    return;
  }
  createReadStream(path, { start, end })
    .on("error", () => response.destroy())
    .pipe(response);
}

function hasIt(request, tag) {
  const known = request.headers["if-none-match"];
  return known === "*" || (known?.split(",").some((item) => item.trim().replace(/^W\//, "") === tag) ?? false);
}

function sendText(request, response, text) {
  const tag = `"${/"version": "([^"]+)"/.exec(text)[1]}"`;
  const headers = { "Content-Type": TYPES[".js"], "Cache-Control": "no-cache", ETag: tag };
  if (hasIt(request, tag)) response.writeHead(304, headers).end();
  else response.writeHead(200, headers).end(request.method === "HEAD" ? undefined : text);
}

/** Listens on this machine only; port 0 takes a free one; `web` is the folder of the page. Resolves to the server. */
export function serve(port, web = WEB) {
  const server = createServer((request, response) => {
    // A file can go while it is read.
    answer(request, response, web).catch(() => (response.headersSent ? response.destroy() : response.writeHead(500).end()));
  });
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
