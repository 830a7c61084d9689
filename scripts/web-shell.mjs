// The files that the page consists of, each with its SHA-256: web/sw.js keeps them, and its browser asks for new ones when this list changes.
//
//   usage: node scripts/web-shell.mjs >web/pkg/shell.js

import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const WEB = fileURLToPath(new URL("../web", import.meta.url));
/** Of the npm package only what the page loads. */
const OF_PACKAGE = ["index.js", "files.js", "net.js", "sources.js", "store.js", "units.js", "moebius.js", "moebius_bg.wasm", "demo.json"];
const KINDS = /\.(html|js|css|svg|json)$/;

const digest = (bytes) => createHash("sha256").update(bytes).digest("base64");

/** The text of pkg/shell.js for the page in the folder `web`. */
export async function shell(web = WEB) {
  const found = await readdir(web, { recursive: true, withFileTypes: true });
  const paths = found.filter((file) => file.isFile()).map((file) => relative(web, join(file.parentPath ?? file.path, file.name)).split(sep).join("/"));
  const isPart = (path) => (path.startsWith("pkg/") ? OF_PACKAGE.includes(path.slice(4)) : !path.startsWith("package/") && path !== "sw.js" && KINDS.test(path));
  const files = {};
  for (const path of paths.filter(isPart).sort()) files[path === "index.html" ? "" : path] = digest(await readFile(join(web, path)));
  // A new worker is a new version, too.
  const version = digest(JSON.stringify(files) + digest(await readFile(join(web, "sw.js"))));
  return `self.SHELL = ${JSON.stringify({ version, files }, null, 1)};\n`;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) process.stdout.write(await shell());
