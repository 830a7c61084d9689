// Where models come from, and what has to be fetched of each. What cannot be run is refused before its weights are fetched.
//
// A source is `{ base, plan(work) }`: its address, which is also its name in messages and in storage, and what it consists of,
// `{ [file]: { size, sha256, tag, ranges, blob, url } }`; `blob` where the file is here already, `url` where it does not lie beside `base`.
// `isCurrent(record)` says whether what is stored is still what the source has. `work` is `{ tell(event), signal }`: who is told what
// happens, and what ends it.

import { fileFromBlob } from "./files.js";
import { checkFiles, chooseGguf, ggufParts } from "./moebius.js";
import { NetError, blobIfThere, blobOf, jsonOf, probe, remoteFile } from "./net.js";

const CONFIG = "config.json";
const TOKENIZER = "tokenizer.json";
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const OPTIONAL = [
  TOKENIZER,
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "generation_config.json",
  "chat_template.jinja",
  "chat_template.json",
];
/** What older repositories have in place of tokenizer.json. */
const VOCABULARIES = ["vocab.json", "merges.txt"];
const HUB = "https://huggingface.co";
/** Where pages about models are, whose addresses people copy. */
const HUB_HOSTS = ["huggingface.co", "www.huggingface.co", "hf.co"];
/** `org/name`, with the format of one of its GGUF files and a revision where they are wanted. */
const HUB_ID = /^([\w.-]+\/[\w.-]+)(?::([\w.-]+))?(?:@([\w.-]+))?$/;
const MOST_NAMES = 8;

const entry = (blob) => ({ size: blob.size, blob });
const isGguf = (name) => /\.gguf$/i.test(name);
const last = (path) => path.split("/").at(-1);

/** The address of a file of a plan. */
export const urlOf = (base, name, { url }) => url ?? new URL(`./${name}`, base).href;

/** The files of a plan, to look into: from here where they are here, in parts over the network otherwise. */
export function filesOf(base, plan, signal) {
  const file = ([name, planned]) => [name, planned.blob ? fileFromBlob(planned.blob) : remoteFile(urlOf(base, name, planned), planned.size, signal)];
  return Object.fromEntries(Object.entries(plan).map(file));
}

/**
 * The source of `model`: `org/name`, `org/name@revision` or `org/name:Q4_K_M` on the hub, the address of a folder or of a GGUF file, or
 * `{ url, list }` for a folder whose files are listed at the address `list`, with their sizes and sums.
 */
export function sourceOf(model) {
  if (typeof model === "object" && "list" in model) return listedSource(addressOf(model.url), addressOf(model.list));
  const name = String(model).trim();
  if (HUB_ID.test(name) && !/^\.|^hf\.co\//.test(name)) return hubSource(name);
  return urlSource(/^(hf\.co|huggingface\.co)\//.test(name) ? `https://${name}` : name);
}

function addressOf(address) {
  try {
    return new URL(address, globalThis.location?.href).href;
  } catch {
    throw new NetError("format", `"${address}" is no address and no name of a model on the hub`, "a name looks like org/name, an address like https://example.org/model/");
  }
}

/** A directory whose list of files, with sizes and sums, lies at `list`. It belongs to the page and is trusted. */
export function listedSource(base, list) {
  const isCurrent = async ({ files }) => {
    try {
      const names = Object.entries(await jsonOf(list));
      return names.every(([name, { sha256 }]) => files[name]?.sha256 === sha256);
    } catch {
      // Without a network, what is stored is the best there is.
      return true;
    }
  };
  return { base, isCurrent, plan: ({ signal }) => jsonOf(list, { signal }) };
}

/** The address of a directory, or of a file in it, on a server that offers no list of its files: the usual names are tried. */
export function urlSource(address) {
  const url = new URL(addressOf(address));
  const onHub = HUB_HOSTS.includes(url.host) && /^\/([\w.-]+\/[\w.:-]+)(?:\/(?:tree|blob|resolve)\/([\w.-]+)(?:\/(.*))?)?\/?$/.exec(url.pathname);
  if (onHub) {
    const [, repo, revision = "main", file = ""] = onHub;
    return isGguf(file) ? hubFileSource(repo, revision, file) : hubSource(`${repo}@${revision}`);
  }
  const [, directory, file] = /^(.*\/)([^/]*)$/.exec(url.pathname);
  if (isGguf(file)) {
    // A query may be a ticket for this file, which is not part of its name.
    url.hash = "";
    return { base: url.href, plan: (work) => guessParts(url, decodeURIComponent(file), work) };
  }
  url.pathname = [CONFIG, TOKENIZER, INDEX].includes(file) || file.endsWith(".safetensors") ? directory : `${directory}${file}${file ? "/" : ""}`;
  url.hash = "";
  const { search } = url;
  url.search = "";
  if (search) throw new NetError("format", `${address}: an address with a query (${search}) names no folder`, "leave the query out");
  return { base: url.href, plan: (work) => guess(url.href, work) };
}

async function guess(base, work) {
  const { tell, signal } = work;
  const plan = await readConfig(base, work);
  const readIfThere = async (name) => {
    tell({ type: "look", file: name });
    const blob = await blobIfThere(base + name, { signal });
    if (blob) plan[name] = entry(blob);
  };
  for (const name of OPTIONAL) await readIfThere(name);
  if (!plan[TOKENIZER]) for (const name of VOCABULARIES) await readIfThere(name);
  await readIfThere(INDEX);
  const shards = plan[INDEX] ? await shardsOf(base, plan) : [WEIGHTS];
  for (const name of shards) {
    tell({ type: "look", file: name });
    plan[name] = await probe(base + name, { signal });
  }
  // Without the length of a shard its header cannot be judged before it is here.
  if (shards.every((name) => plan[name].size !== undefined)) await checkFiles(filesOf(base, plan, signal), base);
  return plan;
}

/** A GGUF file with its other parts, which lie beside it under names of one pattern. */
async function guessParts(url, file, { tell, signal }) {
  const base = url.href;
  const plan = {};
  for (const name of ggufParts(file)) {
    tell({ type: "look", file: name });
    const address = new URL(url);
    address.pathname = address.pathname.replace(/[^/]*$/, encodeURIComponent(name));
    plan[name] = { ...(await probe(address.href, { signal })), url: address.href };
  }
  return await checkedHeaders(base, plan, signal);
}

/** The plan of GGUF files, whose headers alone decide whether they can be run: refused before the weights are fetched. */
async function checkedHeaders(base, plan, signal) {
  const canRead = Object.values(plan).every(({ size, ranges }) => size !== undefined && ranges);
  if (canRead) await checkFiles(filesOf(base, plan, signal), base);
  return plan;
}

async function readConfig(base, { tell, signal }) {
  tell({ type: "look", file: CONFIG });
  const plan = { [CONFIG]: entry(await blobOf(base + CONFIG, { signal })) };
  await checkFiles(filesOf(base, plan), base);
  return plan;
}

/** The files that the index of a plan names. */
async function shardsOf(base, plan) {
  const url = base + INDEX;
  let map;
  try {
    map = JSON.parse(await plan[INDEX].blob.text()).weight_map;
  } catch (error) {
    throw new NetError("json", `${url}: this is not JSON: ${error.message}`);
  }
  const names = [...new Set(Object.values(map ?? {}))];
  const wrong = names.find((name) => typeof name !== "string" || !/^[^/\\]+\.safetensors$/.test(name));
  if (names.length === 0 || wrong !== undefined) {
    throw new NetError("json", `${url}: \`weight_map\` must name safetensors files beside it, found ${wrong === undefined ? "none" : `\`${wrong}\``}`);
  }
  return names.sort();
}

/** A model on the hub, which lists sizes and sums. Of several GGUF files the id names one by its format. */
export function hubSource(id) {
  const [, repo, tag, revision = "main"] = HUB_ID.exec(id);
  const folder = `${HUB}/${repo}/resolve/${revision}/`;
  // Each of several models in one repository has a place of its own in storage.
  const base = tag ? `${folder}#${tag}` : folder;
  return { base, plan: (work) => hubPlan({ repo, revision, tag, base }, work) };
}

/** One GGUF file of a repository, with its other parts. */
function hubFileSource(repo, revision, file) {
  const base = `${HUB}/${repo}/resolve/${revision}/${file}`;
  const plan = async (work) => {
    const files = await listHub({ repo, revision }, work);
    const folder = file.slice(0, file.lastIndexOf("/") + 1);
    return await ggufPlan(base, files, ggufParts(last(file)).map((part) => folder + part), work);
  };
  return { base, plan };
}

/** The plan of the GGUF files at `paths` of a repository. */
async function ggufPlan(base, files, paths, { signal }) {
  const missing = paths.find((path) => !files[path]);
  if (missing) throw new NetError("missing", `${base}: the repository has no file ${missing}`, "compare the address with the list of its files");
  return await checkedHeaders(base, Object.fromEntries(paths.map((path) => [last(path), files[path]])), signal);
}

/** `{ [path]: { size, sha256, ranges, url } }` of all files in a repository. */
async function listHub({ repo, revision }, { tell, signal }) {
  const list = `${HUB}/api/models/${repo}/tree/${revision}`;
  tell({ type: "look", file: repo });
  let listed;
  try {
    listed = await jsonOf(`${list}?recursive=true`, { signal });
  } catch (error) {
    if (!["missing", "denied"].includes(error.kind)) throw error;
    throw new NetError(error.kind, `${list}: the hub has no public model ${repo} at ${revision}`, "compare the name; a gated or private model has to be downloaded with a program that can log in, and then chosen as a folder");
  }
  const file = ({ path, size, lfs }) => [path, { size, sha256: lfs?.oid, ranges: true, url: `${HUB}/${repo}/resolve/${revision}/${path}` }];
  return Object.fromEntries(listed.filter(({ type }) => type === "file").map(file));
}

async function hubPlan({ repo, revision, tag, base }, work) {
  const { tell, signal } = work;
  const files = await listHub({ repo, revision }, work);
  const paths = ggufChoice(base, repo, tag, files);
  if (paths) return await ggufPlan(base, files, paths, work);
  // A repository in another format is told by the names of its files.
  if (!files[CONFIG]) await checkFiles(filesOf(base, files), base);
  const plan = await readConfig(base, work);
  const vocabularies = files[TOKENIZER] ? [] : VOCABULARIES;
  const small = [...OPTIONAL, ...vocabularies, ...(files[WEIGHTS] ? [] : [INDEX])].filter((name) => files[name]);
  for (const name of small) {
    tell({ type: "look", file: name });
    plan[name] = { ...files[name], ...entry(await blobOf(urlOf(base, name, files[name]), { signal })) };
  }
  if (files[WEIGHTS]) plan[WEIGHTS] = files[WEIGHTS];
  else if (plan[INDEX]) {
    for (const name of await shardsOf(base, plan)) if (files[name]) plan[name] = files[name];
  }
  const others = plan[WEIGHTS] || plan[INDEX] ? {} : files;
  await checkFiles(filesOf(base, { ...others, ...plan }, signal), base);
  return plan;
}

/** The paths of the GGUF files that are meant; `undefined` where the model has the layout of transformers. */
function ggufChoice(base, repo, tag, files) {
  try {
    return chooseGguf(repo, tag, Object.keys(files));
  } catch (error) {
    throw new NetError("format", `${base}: ${error.message}`);
  }
}

/** The model in one GGUF file that was chosen, or in all parts of one. */
export function filesFromParts(list) {
  const first = list.map(({ name }) => name).sort()[0];
  return { name: first, files: Object.fromEntries(list.map((file) => [file.name, fileFromBlob(file)])) };
}

/** The model in a chosen folder: the files that lie in it directly. Folders in it may hold another layout of the same model. */
export function filesFromFolder(list) {
  const paths = list.map((file) => ({ file, path: file.webkitRelativePath.split("/") }));
  const name = paths[0].path[0];
  const direct = paths.filter(({ path }) => path.length <= 2);
  if (!direct.some(({ file }) => file.name === CONFIG || isGguf(file.name))) {
    const inside = paths.filter(({ file }) => file.name === CONFIG).map(({ path }) => path.slice(1, -1).join("/"));
    if (inside.length > 0) throw new NetError("folder", parentOf(name, inside.sort()), "choose one of these folders itself");
  }
  return { name, files: Object.fromEntries(direct.map(({ file }) => [file.name, fileFromBlob(file)])) };
}

function parentOf(name, inside) {
  const shown = inside.slice(0, MOST_NAMES).map((folder) => `${name}/${folder}`);
  const more = inside.length > MOST_NAMES ? ` and ${inside.length - MOST_NAMES} more` : "";
  const verb = inside.length === 1 ? "one folder in it holds a model" : `${inside.length} folders in it hold a model`;
  return `The folder ${name} has no config.json of its own, but ${verb}: ${shown.join(", ")}${more}`;
}
