// The Hugging Face hub, as far as fetching a model needs it, played for the pages of a browser.

import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";

const HUB = "https://huggingface.co";
const CORS = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Content-Range" };
const REVISIONS = ["main", "v2"];

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export class Hub {
  /** What was asked for: paths, with the range where there is one. */
  asked = [];

  /**
   * Answers for the hub in `context`. `repositories`: names to folders, or to what `filesOf` gives, to a status that is answered instead, or to a
   * web page. The file that `damaged` names has another checksum than the hub says.
   */
  static async play(context, repositories) {
    const hub = new Hub();
    const entries = Object.entries(repositories).map(async ([name, there]) => [name, typeof there === "string" && !there.startsWith("<") ? await filesOf(there) : there]);
    hub.repositories = Object.fromEntries(await Promise.all(entries));
    await context.route(`${HUB}/**`, (route) => hub.#answer(route));
    return hub;
  }

  async #answer(route) {
    const request = route.request();
    const { pathname } = new URL(request.url());
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers().range ?? "");
    this.asked.push(`${pathname}${range ? ` ${range[0]}` : ""}`);
    const [, listed, name, , revision, path] = /^(\/api\/models)?\/([^/]+\/[^/]+)\/(tree|resolve)\/([^/]+)\/?(.*)$/.exec(pathname);
    const files = REVISIONS.includes(revision) ? this.repositories[name] : undefined;
    if (typeof files === "number") return await route.fulfill({ status: files, headers: CORS });
    if (typeof files === "string") return await route.fulfill({ status: 200, headers: CORS, contentType: "text/html", body: files });
    if (!files) return await route.fulfill({ status: 404, headers: CORS });
    const { damaged, ...there } = files;
    if (listed) {
      const oid = (path, bytes) => sha256(path === damaged ? "other" : bytes);
      const list = Object.entries(there).map(([path, bytes]) => ({ type: "file", path, size: bytes.length, ...(path.endsWith("safetensors") && { lfs: { oid: oid(path, bytes) } }) }));
      return await route.fulfill({ headers: CORS, contentType: "application/json", body: JSON.stringify(list) });
    }
    const body = there[path];
    if (!body) return await route.fulfill({ status: 404, headers: CORS });
    if (!range) return await route.fulfill({ headers: CORS, body });
    const [start, end] = [Number(range[1]), Math.min(range[2] ? Number(range[2]) : Infinity, body.length - 1)];
    return await route.fulfill({ status: 206, headers: { ...CORS, "Content-Range": `bytes ${start}-${end}/${body.length}` }, body: body.subarray(start, end + 1) });
  }
}

/** The files of a fixture, without what tests expect of it. */
export async function filesOf(folder) {
  const names = (await readdir(folder)).filter((name) => !name.startsWith("expected") && name !== "refuses.json");
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))])));
}
