// Model files in the browser's own storage (OPFS): fetched with resume, checked by size and SHA-256, listed and removed.
// Runs in the worker only: synchronous access handles exist nowhere else.

import { Sha256, fileFromBlob, fileFromUrl } from "./pkg/index.js";

const FOLDER = "moebius-models";
const RECORD = "record.json";
const PIECE_BYTES = 4 << 20;
const LONGEST_NAME = 200;
const REQUIRED = ["config.json", "tokenizer.json"];
const OPTIONAL = [
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "generation_config.json",
  "chat_template.jinja",
  "chat_template.json",
];
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const HUB = "https://huggingface.co";

/** The files of a model, from storage where they are there, from `base` otherwise. `{ files, from }`, with `from` in words. */
export async function openModel(source, onProgress) {
  const folder = await modelFolder(source.base, true);
  const stored = folder && (await readRecord(folder));
  if (stored?.complete && stored.base === source.base) {
    const files = await storedFiles(folder, stored);
    if (files) return { files, from: "storage" };
  }
  const manifest = await source.manifest();
  if (folder) {
    try {
      await fetchAll(folder, source.base, manifest, onProgress);
      return { files: await storedFiles(folder, await readRecord(folder)), from: "network" };
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      const { quota = 0, usage = 0 } = await navigator.storage.estimate();
      await removeModel(source.base);
      onProgress({ note: `Not stored: it is larger than the ${megabytes(quota - usage)} that this browser leaves.` });
    }
  }
  return { files: await remoteFiles(source.base, manifest), from: "network, not stored" };
}

/** A directory on a server that offers no list of its files: the usual names. */
export function urlSource(base) {
  return { base, manifest: () => guessManifest(base) };
}

/** A directory whose list of files, with sizes and sums, lies at `list`. */
export function listedSource(base, list) {
  return {
    base,
    manifest: async () => {
      const response = await fetch(list);
      if (!response.ok) throw new Error(`${list}: HTTP ${response.status}`);
      return await response.json();
    },
  };
}

/** `org/name` or `org/name@revision` on the hub, which tells sizes and sums. */
export function hubSource(id) {
  const [repo, revision = "main"] = id.split("@");
  const base = `${HUB}/${repo}/resolve/${revision}/`;
  const manifest = async () => {
    const response = await fetch(`${HUB}/api/models/${repo}/tree/${revision}`);
    if (!response.ok) throw new Error(`the hub has no public ${repo} at ${revision} (HTTP ${response.status})`);
    const wanted = (path) => REQUIRED.includes(path) || OPTIONAL.includes(path) || path === INDEX || /^model.*\.safetensors$/.test(path);
    const files = (await response.json()).filter(({ type, path }) => type === "file" && wanted(path));
    return Object.fromEntries(files.map(({ path, size, lfs }) => [path, { size, sha256: lfs?.oid }]));
  };
  return { base, manifest };
}

/** `[{ base, bytes, files: [{ name, size, sha256 }], complete }]`, and what the browser grants. */
export async function listStored() {
  const root = await rootFolder(false);
  const models = [];
  if (root) {
    for await (const folder of root.values()) {
      const record = await readRecord(folder);
      if (!record) continue;
      const files = Object.entries(record.files).map(([name, { size, sha256 }]) => ({ name, size, sha256 }));
      models.push({ base: record.base, files, bytes: files.reduce((sum, { size }) => sum + size, 0), complete: record.complete });
    }
  }
  const { quota, usage } = (await navigator.storage?.estimate?.()) ?? {};
  return { models, quota, usage, available: root !== undefined };
}

export async function removeModel(base) {
  const root = await rootFolder(false);
  await root?.removeEntry(folderName(base), { recursive: true }).catch(() => {});
}

/** Reads every stored byte of a model again; the names of the files that are not what was fetched. */
export async function verifyModel(base) {
  const folder = await modelFolder(base, false);
  const record = folder && (await readRecord(folder));
  const damaged = [];
  for (const [name, { size, sha256 }] of Object.entries(record?.files ?? {})) {
    const file = await folder.getFileHandle(name).then((handle) => handle.getFile()).catch(() => undefined);
    if (file?.size !== size || (await digestOf(file)) !== sha256) damaged.push(name);
  }
  return damaged;
}

async function digestOf(blob) {
  const sum = new Sha256();
  for (let start = 0; start < blob.size; start += PIECE_BYTES) {
    sum.update(new Uint8Array(await blob.slice(start, start + PIECE_BYTES).arrayBuffer()));
  }
  return finish(sum);
}

function finish(sum) {
  const digest = sum.digest();
  sum.free();
  return digest;
}

async function rootFolder(create) {
  try {
    const origin = await navigator.storage.getDirectory();
    return await origin.getDirectoryHandle(FOLDER, { create });
  } catch (error) {
    // No such folder yet, or a private window without storage.
    return undefined;
  }
}

async function modelFolder(base, create) {
  const root = await rootFolder(create);
  return await root?.getDirectoryHandle(folderName(base), { create }).catch(() => undefined);
}

/** A name of its own for every address; of those that are too long for a file system, the rest is told apart by a checksum. */
function folderName(base) {
  const name = encodeURIComponent(base).replaceAll("*", "%2A");
  if (name.length <= LONGEST_NAME) return name;
  const sum = new Sha256();
  sum.update(new TextEncoder().encode(base));
  return `${name.slice(0, LONGEST_NAME - 65)}-${finish(sum)}`;
}

async function readRecord(folder) {
  try {
    const file = await (await folder.getFileHandle(RECORD)).getFile();
    return JSON.parse(await file.text());
  } catch {
    return undefined;
  }
}

async function writeRecord(folder, record) {
  const handle = await (await folder.getFileHandle(RECORD, { create: true })).createSyncAccessHandle();
  try {
    handle.truncate(0);
    handle.write(new TextEncoder().encode(JSON.stringify(record)), { at: 0 });
    handle.flush();
  } finally {
    handle.close();
  }
}

/** `undefined` if a file is missing or has another size than when it was fetched. */
async function storedFiles(folder, record) {
  const files = {};
  for (const [name, { size }] of Object.entries(record.files)) {
    const file = await folder.getFileHandle(name).then((handle) => handle.getFile()).catch(() => undefined);
    if (file?.size !== size) return undefined;
    files[name] = fileFromBlob(file);
  }
  return files;
}

async function remoteFiles(base, manifest) {
  const entries = Object.keys(manifest).map(async (name) => [name, await fileFromUrl(base + name)]);
  return Object.fromEntries(await Promise.all(entries));
}

async function guessManifest(base) {
  const has = async (name) => (await fetch(base + name, { method: "HEAD" })).ok;
  const manifest = Object.fromEntries(REQUIRED.map((name) => [name, {}]));
  for (const name of OPTIONAL) if (await has(name)) manifest[name] = {};
  if (await has(INDEX)) {
    manifest[INDEX] = {};
    const index = await (await fetch(base + INDEX)).json();
    for (const shard of new Set(Object.values(index.weight_map))) manifest[shard] = {};
  } else {
    manifest[WEIGHTS] = {};
  }
  return manifest;
}

async function fetchAll(folder, base, manifest, onProgress) {
  const before = await readRecord(folder);
  const record = { base, files: {}, complete: false };
  const names = Object.keys(manifest);
  const total = names.reduce((sum, name) => sum + (manifest[name].size ?? 0), 0);
  let done = 0;
  for (const name of names) {
    const expected = manifest[name];
    const known = before?.files[name];
    const onBytes = (bytes) => onProgress({ phase: "fetch", file: name, done: done + bytes, total });
    const isThere = known && known.sha256 === expected.sha256 && (await storedFiles(folder, { files: { [name]: known } }));
    record.files[name] = isThere ? known : await fetchFile(folder, base, name, expected, onBytes);
    done += record.files[name].size;
    await writeRecord(folder, record);
  }
  await writeRecord(folder, { ...record, complete: true });
}

/** Fetches one file from where an earlier attempt stopped. What it is: `{ size, sha256 }`. */
async function fetchFile(folder, base, name, expected, onBytes) {
  const handle = await (await folder.getFileHandle(name, { create: true })).createSyncAccessHandle();
  const sum = new Sha256();
  try {
    let end = handle.getSize();
    // Without a known size there is no telling whether what is there belongs to the same file.
    if (!expected.size || end >= expected.size) end = 0;
    const piece = new Uint8Array(PIECE_BYTES);
    for (let at = 0; at < end; ) {
      const read = handle.read(piece.subarray(0, Math.min(PIECE_BYTES, end - at)), { at });
      sum.update(piece.subarray(0, read));
      at += read;
    }
    const response = await fetch(base + name, end > 0 ? { headers: { Range: `bytes=${end}-` } } : {});
    if (!response.ok) throw new Error(`${base}${name}: HTTP ${response.status}`);
    if (end > 0 && response.status !== 206) {
      end = 0;
      sum.digest();
    }
    handle.truncate(end);
    for (const reader = response.body.getReader(); ; ) {
      const { value, done } = await reader.read();
      if (done) break;
      handle.write(value, { at: end });
      sum.update(value);
      end += value.length;
      onBytes(end);
    }
    handle.flush();
    const sha256 = sum.digest();
    check(name, { size: end, sha256 }, expected, handle);
    return { size: end, sha256 };
  } finally {
    handle.close();
    sum.free();
  }
}

function check(name, found, expected, handle) {
  const problem =
    expected.size && found.size !== expected.size
      ? `expected ${expected.size} bytes, received ${found.size}`
      : expected.sha256 && found.sha256 !== expected.sha256
        ? `its SHA-256 is ${found.sha256}, expected ${expected.sha256}`
        : undefined;
  if (!problem) return;
  // A file that is only cut short can be resumed; any other is of no use.
  if (found.size >= (expected.size ?? 0)) handle.truncate(0);
  throw new Error(`${name} arrived damaged: ${problem}`);
}

function megabytes(bytes) {
  return `${Math.round(bytes / 1e6)} MB`;
}
