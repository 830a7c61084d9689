// Where models come from, and what has to be fetched of each. What cannot be run is refused before its weights are fetched.
//
// A source is `{ base, plan(work) }`: its address, which is also its name in messages and in storage, and what it consists of,
// `{ [file]: { size, sha256, tag, ranges, blob } }`; `blob` where the file is here already. `isCurrent(record)` says whether what is
// stored is still what the source has. `work` is `{ tell(event), signal }`: who is told what happens, and what ends it.

import { fileFromBlob } from "./files.js";
import { checkFiles } from "./moebius.js";
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
const MOST_NAMES = 8;

const entry = (blob) => ({ size: blob.size, blob });

/** The files of a plan, to look into: from here where they are here, in parts over the network otherwise. */
export function filesOf(base, plan, signal) {
  const file = ([name, { size, blob }]) => [name, blob ? fileFromBlob(blob) : remoteFile(base + name, size, signal)];
  return Object.fromEntries(Object.entries(plan).map(file));
}

/**
 * The source of `model`: `org/name` or `org/name@revision` on the hub, the address of a folder, or `{ url, list }` for a folder whose
 * files are listed at the address `list`, with their sizes and sums.
 */
export function sourceOf(model) {
  if (typeof model === "object" && "list" in model) return listedSource(addressOf(model.url), addressOf(model.list));
  const name = String(model).trim();
  if (/^[\w.-]+\/[\w.-]+(@[\w.-]+)?$/.test(name) && !/^\.|^hf\.co\//.test(name)) return hubSource(name);
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
  const onHub = HUB_HOSTS.includes(url.host) && /^\/([\w.-]+\/[\w.-]+)(?:\/(?:tree|blob|resolve)\/([\w.-]+)(?:\/.*)?)?\/?$/.exec(url.pathname);
  if (onHub) return hubSource(onHub[2] ? `${onHub[1]}@${onHub[2]}` : onHub[1]);
  const [, directory, file] = /^(.*\/)([^/]*)$/.exec(url.pathname);
  if (file.endsWith(".gguf")) {
    throw new NetError("format", `${url.href} names a GGUF file, the format of llama.cpp, which is not read`, "look for the repository it was made from, and give the address of its folder");
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

/** `org/name` or `org/name@revision` on the hub, which lists sizes and sums. */
export function hubSource(id) {
  const [repo, revision = "main"] = id.split("@");
  const base = `${HUB}/${repo}/resolve/${revision}/`;
  return { base, plan: (work) => hubPlan(repo, revision, base, work) };
}

async function hubPlan(repo, revision, base, work) {
  const { tell, signal } = work;
  const list = `${HUB}/api/models/${repo}/tree/${revision}`;
  tell({ type: "look", file: repo });
  let listed;
  try {
    listed = await jsonOf(list, { signal });
  } catch (error) {
    if (!["missing", "denied"].includes(error.kind)) throw error;
    throw new NetError(error.kind, `${list}: the hub has no public model ${repo} at ${revision}`, "compare the name; a gated or private model has to be downloaded with a program that can log in, and then chosen as a folder");
  }
  const files = Object.fromEntries(listed.filter(({ type }) => type === "file").map(({ path, size, lfs }) => [path, { size, sha256: lfs?.oid, ranges: true }]));
  // A repository in another format is told by the names of its files.
  if (!files[CONFIG]) await checkFiles(filesOf(base, files), base);
  const plan = await readConfig(base, work);
  const vocabularies = files[TOKENIZER] ? [] : VOCABULARIES;
  const small = [...OPTIONAL, ...vocabularies, ...(files[WEIGHTS] ? [] : [INDEX])].filter((name) => files[name]);
  for (const name of small) {
    tell({ type: "look", file: name });
    plan[name] = { ...files[name], ...entry(await blobOf(base + name, { signal })) };
  }
  if (files[WEIGHTS]) plan[WEIGHTS] = files[WEIGHTS];
  else if (plan[INDEX]) {
    for (const name of await shardsOf(base, plan)) if (files[name]) plan[name] = files[name];
  }
  const others = plan[WEIGHTS] || plan[INDEX] ? {} : files;
  await checkFiles(filesOf(base, { ...others, ...plan }, signal), base);
  return plan;
}

/** The model in a chosen folder: the files that lie in it directly. Folders in it may hold another layout of the same model. */
export function filesFromFolder(list) {
  const paths = list.map((file) => ({ file, path: file.webkitRelativePath.split("/") }));
  const name = paths[0].path[0];
  const direct = paths.filter(({ path }) => path.length <= 2);
  if (!direct.some(({ file }) => file.name === CONFIG)) {
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
