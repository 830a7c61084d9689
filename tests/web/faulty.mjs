// A server of model files that misbehaves as servers in the field do. It is another origin than the page.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const FIXTURES = fileURLToPath(new URL("../golden/fixtures/", import.meta.url));

/**
 * Serves files of `folder`, of which the second part of a path names a folder; the first part names a behaviour, `(request, response, name, body) => done`.
 * Without one, a file is sent with ranges and CORS. `requests` lists what came: `METHOD path range`.
 */
export async function faulty(behaviours, folder = FIXTURES) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const [, behaviour, fixture, name] = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)).split("/");
    requests.push(`${request.method} ${request.url}${request.headers.range ? ` ${request.headers.range}` : ""}`);
    const body = name && (await readFile(join(folder, fixture, name)).catch(() => undefined));
    if (behaviours[behaviour]?.(request, response, name, body)) return;
    send(request, response, body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    requests,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

const CORS = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Content-Range, ETag" };

/** `body`, or the part of it that is asked for. */
export function send(request, response, body, headers = {}) {
  if (body === undefined) return response.writeHead(404, CORS).end("not found");
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const [start, end] = range ? [Number(range[1]), Math.min(range[2] ? Number(range[2]) : Infinity, body.length - 1)] : [0, body.length - 1];
  if (range && start >= body.length) return response.writeHead(416, { ...CORS, "Content-Range": `bytes */${body.length}` }).end();
  const part = body.subarray(start, end + 1);
  // The browser's own cache would resume downloads by itself.
  const described = { ...CORS, "Cache-Control": "no-store", "Content-Type": "application/octet-stream", "Content-Length": part.length, ...headers };
  if (range) described["Content-Range"] = `bytes ${start}-${end}/${body.length}`;
  response.writeHead(range ? 206 : 200, described);
  return response.end(request.method === "HEAD" ? undefined : part);
}
