// Model files in the browser's own storage (OPFS): fetched with resume, checked by size and SHA-256, listed and removed.
// Only workers can write: synchronous access handles exist nowhere else.

import { fileFromBlob } from "./files.js";
import { Sha256 } from "./moebius.js";
import { NetError, ask, fileOf, pieces } from "./net.js";
import { filesOf, urlOf } from "./sources.js";
import { bytes } from "./units.js";

const FOLDER = "moebius-models";
const RECORD = "record.json";
const PIECE_BYTES = 4 << 20;
const LONGEST_NAME = 200;

const STORES_NOTHING = "This window stores nothing, as private windows do: the model comes from the network, and will again after a reload.";
const ONLY_WORKERS_STORE = "Nothing is stored: only workers can write to the storage of a browser. The model comes from the network, and will again after a reload.";

/** The files of a model, from storage where they are there, from its source otherwise. `{ files, from }`, with `from` in words. */
export async function openModel(source, work) {
  const { tell, signal } = work;
  const folder = await modelFolder(source.base, true);
  const stored = folder && (await readRecord(folder));
  if (stored?.complete && stored.base === source.base && (await (source.isCurrent?.(stored) ?? true))) {
    const files = await storedFiles(folder, stored);
    if (files) return { files, from: "storage" };
  }
  const plan = await source.plan(work);
  if (!folder || !canWrite()) {
    tell({ type: "note", text: canWrite() ? STORES_NOTHING : ONLY_WORKERS_STORE });
    return { files: await unstored(source.base, plan, work), from: "network, not stored" };
  }
  try {
    await fetchAll(folder, source.base, plan, work);
    return { files: await storedFiles(folder, await readRecord(folder)), from: "network" };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof NetError) throw error;
    // What remains is the storage itself, and a model can be used without.
    tell({ type: "note", text: whyNotStored(error, plan) });
    if (error.name !== "NoModificationAllowedError") await removeModel(source.base);
  }
  return { files: await unstored(source.base, plan, work), from: "network, not stored" };
}

/** The files of a model from its source, where nothing shall be stored. */
export async function streamModel(source, work) {
  return { files: await unstored(source.base, await source.plan(work), work), from: "network, not stored" };
}

function whyNotStored(error, plan) {
  if (error.name === "QuotaExceededError") {
    const sizes = Object.values(plan).map(({ size }) => size);
    const what = sizes.includes(undefined) ? "it" : `${bytes(sizes.reduce((sum, size) => sum + size, 0))} more`;
    return `Not stored: this browser has no room for ${what}. Remove stored models that are no longer needed.`;
  }
  if (error.name === "NoModificationAllowedError") return "Not stored: another tab is storing the same model just now.";
  return `Not stored: this browser does not let the page write files (${error.message}).`;
}

/** The files where nothing can be stored: read in parts from the network, or held in memory where a server sends only whole files. */
async function unstored(base, plan, { tell, signal }) {
  const held = { ...plan };
  for (const [name, planned] of Object.entries(plan)) {
    if (planned.blob || planned.ranges || planned.sha256) continue;
    const onBytes = (done) => tell({ type: "fetch", file: name, doneBytes: done, totalBytes: planned.size ?? 0 });
    held[name] = { blob: await fileOf(urlOf(base, name, planned), { onBytes, signal }) };
  }
  return filesOf(base, held, signal);
}

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

/** Only access handles of a worker can write everywhere. */
const canWrite = () => typeof globalThis.FileSystemFileHandle?.prototype.createSyncAccessHandle === "function";

async function rootFolder(create) {
  try {
    const origin = await navigator.storage.getDirectory();
    return await origin.getDirectoryHandle(FOLDER, { create: create && canWrite() });
  } catch {
    // No such folder yet, or a private window without storage.
    return undefined;
  }
}

async function modelFolder(base, create) {
  const root = await rootFolder(create);
  return await root?.getDirectoryHandle(folderName(base), { create: create && canWrite() }).catch(() => undefined);
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

async function fetchAll(folder, base, plan, { tell, signal }) {
  const before = await readRecord(folder);
  const record = { base, files: {}, begun: before?.begun ?? {}, complete: false };
  const names = Object.keys(plan);
  const total = names.every((name) => plan[name].size !== undefined) ? names.reduce((sum, name) => sum + plan[name].size, 0) : 0;
  let done = 0;
  for (const name of names) {
    const expected = plan[name];
    const known = before?.files[name];
    const isThere = known && expected.sha256 && known.sha256 === expected.sha256 && (await storedFiles(folder, { files: { [name]: known } }));
    if (isThere) {
      record.files[name] = known;
    } else {
      // Bytes of an earlier attempt are the beginning of this file if its checksum will tell, or if the server gives it the same tag.
      const resumes = expected.size > 0 && (expected.sha256 || (expected.tag && record.begun[name] === expected.tag));
      record.begun[name] = expected.tag;
      await writeRecord(folder, record);
      const onBytes = (count) => tell({ type: "fetch", file: name, doneBytes: done + count, totalBytes: total });
      const onWait = (seconds) => tell({ type: "wait", file: name, seconds });
      record.files[name] = await keep({ folder, url: urlOf(base, name, expected), name, expected, resumes, signal, onBytes, onWait }).catch((error) => {
        const goesOn = expected.size > 0 && (expected.sha256 || expected.tag);
        if (goesOn && ["cut", "timeout"].includes(error.kind)) error.hint = "what has arrived is kept: load it again to go on from there";
        throw error;
      });
    }
    done += record.files[name].size;
    await writeRecord(folder, record);
  }
  await writeRecord(folder, { ...record, complete: true });
}

/** Puts one file into storage, from where an earlier attempt stopped. What it is: `{ size, sha256 }`. */
async function keep({ folder, url, name, expected, resumes, signal, onBytes, onWait }) {
  const handle = await (await folder.getFileHandle(name, { create: true })).createSyncAccessHandle();
  const sum = new Sha256();
  try {
    let end = handle.getSize();
    if (!resumes || expected.blob || end >= expected.size) end = 0;
    digestBeginning(handle, end, sum);
    let from;
    if (expected.blob) {
      from = [new Uint8Array(await expected.blob.arrayBuffer())];
    } else {
      const response = await ask(url, { headers: end > 0 ? { Range: `bytes=${end}-` } : {}, signal, onWait });
      if (end > 0 && response.status !== 206) {
        end = 0;
        sum.digest();
      }
      from = pieces(url, response, signal);
    }
    handle.truncate(end);
    for await (const piece of from) {
      write(handle, piece, end);
      sum.update(piece);
      end += piece.length;
      onBytes(end);
    }
    handle.flush();
    const sha256 = sum.digest();
    compare(url, { size: end, sha256 }, expected, handle);
    return { size: end, sha256 };
  } finally {
    handle.close();
    sum.free();
  }
}

function digestBeginning(handle, end, sum) {
  const piece = new Uint8Array(PIECE_BYTES);
  for (let at = 0; at < end; ) {
    const read = handle.read(piece.subarray(0, Math.min(PIECE_BYTES, end - at)), { at });
    sum.update(piece.subarray(0, read));
    at += read;
  }
}

/** Browsers may write less than they were given instead of saying that there is no room. */
function write(handle, piece, at) {
  const written = handle.write(piece, { at });
  if (written < piece.length) throw new DOMException("the storage is full", "QuotaExceededError");
}

function compare(url, found, expected, handle) {
  const problem =
    expected.size !== undefined && found.size !== expected.size
      ? `expected ${expected.size} bytes, received ${found.size}`
      : expected.sha256 && found.sha256 !== expected.sha256
        ? `its SHA-256 is ${found.sha256}, expected ${expected.sha256}`
        : undefined;
  if (!problem) return;
  // A file that is only cut short can be resumed; any other is of no use.
  const isCut = found.size < (expected.size ?? 0);
  if (!isCut) handle.truncate(0);
  throw new NetError("damaged", `${url} arrived damaged: ${problem}`, isCut ? "load it again: it goes on from there" : "load it again; if that does not help, the server has a damaged file");
}
