// Requests whose errors say in words what happened, always with the address. Nothing here knows models or storage. Every request can be given
// an `AbortSignal`, and fails with its reason once that is aborted.

/** How long a server may say nothing: before it answers, and between two pieces of a file. */
const ANSWER_MS = 30_000;
const PIECE_MS = 60_000;
/** Answers that may be another one soon. */
const BUSY = [429, 502, 503, 504];
const ATTEMPTS = 3;
const LONGEST_WAIT_SECONDS = 20;
/** Enough of a file to ask for its size. */
const PROBE_BYTES = 64;
/** How much of a file may pass by for a part of it: more than the header of any shard has. */
const MAX_BEGINNING_BYTES = 128 << 20;

/**
 * Something that a person can do something about. `kind`: `offline`, `timeout`, `cors`, `mixed`, `unreachable`, `missing`, `denied`, `busy`,
 * `status`, `webpage`, `json`, `cut`, `damaged`.
 */
export class NetError extends Error {
  constructor(kind, message, hint) {
    super(message);
    this.name = "NetError";
    this.kind = kind;
    this.hint = hint;
  }
}

const AGAIN = "load it again";

/** The answer to a request, if it is a good one. `onWait(seconds)` is called before a busy server is asked again. */
export async function ask(url, { headers = {}, method = "GET", signal, onWait = () => {} } = {}) {
  for (let attempt = 1; ; attempt++) {
    const response = await once(url, { headers, method, signal });
    if (response.ok) return response;
    await response.body?.cancel();
    if (!BUSY.includes(response.status) || attempt === ATTEMPTS) throw refusal(url, response);
    const seconds = Math.min(LONGEST_WAIT_SECONDS, Number(response.headers.get("Retry-After")) || attempt);
    onWait(seconds);
    await pause(seconds, signal);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function once(url, { headers, method, signal }) {
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), ANSWER_MS);
  try {
    return await fetch(url, { headers, method, signal: signal ? AbortSignal.any([signal, giveUp.signal]) : giveUp.signal });
  } catch {
    signal?.throwIfAborted();
    throw await unanswered(url, giveUp.signal.aborted);
  } finally {
    clearTimeout(timer);
  }
}

/** Why a request had no answer at all: browsers tell pages no more than that it failed. */
async function unanswered(url, timedOut) {
  const { origin, hostname, protocol } = new URL(url);
  // Node has neither a page nor its limits.
  const page = globalThis.location;
  if (isOffline()) return new NetError("offline", `This browser is offline, so ${url} cannot be fetched`, "models that are in Storage load without a network");
  if (timedOut) return new NetError("timeout", `${url}: no answer within ${ANSWER_MS / 1000} s`, "try again later; if this network needs a proxy or a login, open the address in a tab of its own");
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
  if (page?.protocol === "https:" && protocol === "http:" && !isLocal) {
    return new NetError("mixed", `${url}: a page that came by https may fetch nothing by http`, "use the https address of the server");
  }
  if (page && origin !== page.origin && (await answersAnybody(url))) {
    const hint = `its answers need the header "Access-Control-Allow-Origin: ${page.origin}"; or download the model and choose its folder`;
    return new NetError("cors", `${url}: the server answers, but does not let this page read its files (CORS)`, hint);
  }
  return new NetError("unreachable", `${url}: there is no server, or it refuses the connection`, "compare the address; a firewall or an ad blocker can be in the way, too");
}

const isOffline = () => globalThis.navigator?.onLine === false;

/** Whether anything answers there, readable for this page or not. */
async function answersAnybody(url) {
  try {
    await fetch(url, { method: "HEAD", mode: "no-cors", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    return true;
  } catch {
    return false;
  }
}

function refusal(url, { status }) {
  if (status === 404 || status === 410) return new NetError("missing", `${url}: there is no such file (HTTP ${status})`, "compare the address with that of the model's folder");
  if (status === 401 || status === 403) {
    return new NetError("denied", `${url}: the server wants a login (HTTP ${status})`, "the page has no passwords and no tokens: download the model with a program that has, and choose its folder");
  }
  if (BUSY.includes(status)) return new NetError("busy", `${url}: the server is too busy (HTTP ${status}), also after ${ATTEMPTS} attempts`, "try again in some minutes");
  return new NetError("status", `${url}: the server answered with HTTP ${status}`);
}

const webPage = (url) =>
  new NetError("webpage", `${url}: the server answered with a web page in place of the file`, "compare the address; a network with a login page answers so, too, until you have logged in");

const saysHtml = (response) => /^text\/html\b/i.test(response.headers.get("Content-Type") ?? "");
const looksLikeHtml = (text) => /^\s*<(!doctype|html|head|body|!--)/i.test(text);

/** The pieces of a body as they arrive. */
export async function* pieces(url, response, signal) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      let timer;
      const silence = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new NetError("timeout", `${url}: nothing came for ${PIECE_MS / 1000} s`, AGAIN)), PIECE_MS);
      });
      const { value, done } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof NetError) throw error;
    const why = isOffline() ? "this browser went offline" : "the connection broke off";
    throw new NetError("cut", `${url}: ${why} before the file was complete`, AGAIN);
  } finally {
    // Also where the consumer wants no more.
    await reader.cancel().catch(() => {});
  }
}

async function whole(url, response, { signal, onBytes = () => {} } = {}) {
  const all = [];
  let count = 0;
  for await (const piece of pieces(url, response, signal)) {
    all.push(piece);
    count += piece.length;
    onBytes(count);
  }
  return new Blob(all);
}

/** A whole file. `onBytes(count)` is called as it arrives. */
export async function fileOf(url, options) {
  const response = await ask(url, options);
  if (saysHtml(response)) {
    await response.body?.cancel();
    throw webPage(url);
  }
  return await whole(url, response, options);
}

/** A small file of text; a web page in its place is an error, whatever the server calls it. */
export async function blobOf(url, options) {
  const response = await ask(url, options);
  const blob = await whole(url, response, options);
  const text = await blob.text();
  if (looksLikeHtml(text) || (saysHtml(response) && !isJson(text))) throw webPage(url);
  return blob;
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The same where the server may not have it: `undefined` then. */
export async function blobIfThere(url, options) {
  try {
    return await blobOf(url, options);
  } catch (error) {
    // Stores of objects answer 403 for what is not there, applications of one page with that page, and some servers forget CORS then.
    if (["missing", "denied", "webpage", "cors"].includes(error.kind)) return undefined;
    throw error;
  }
}

export async function jsonOf(url, options) {
  const text = await (await blobOf(url, options)).text();
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new NetError("json", `${url}: this is not JSON: ${error.message}`);
  }
}

/** `{ size, ranges, tag }` of a file: its length, whether parts of it can be had, and what changes when the file does. */
export async function probe(url, { signal } = {}) {
  let response;
  try {
    response = await ask(url, { headers: { Range: `bytes=0-${PROBE_BYTES - 1}` }, signal });
  } catch (error) {
    // An empty file has no range that could be asked for.
    if (error.kind === "status" && error.message.endsWith("416")) return { size: 0, ranges: true };
    throw error;
  }
  await response.body?.cancel();
  if (saysHtml(response)) throw webPage(url);
  const tag = response.headers.get("ETag") ?? response.headers.get("Last-Modified") ?? undefined;
  if (response.status !== 206) return { size: lengthOf(response), ranges: false, tag };
  const total = /\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
  // Servers may answer other pages and still hide that header from them.
  const size = total ? Number(total[1]) : await headLength(url, signal);
  return { size, ranges: size !== undefined, tag };
}

function lengthOf(response) {
  const length = response.headers.get("Content-Length");
  return length === null || response.headers.has("Content-Encoding") ? undefined : Number(length);
}

async function headLength(url, signal) {
  const response = await ask(url, { method: "HEAD", signal }).catch(() => undefined);
  signal?.throwIfAborted();
  return response && lengthOf(response);
}

/** A file on a server, read in parts. Its beginning can be read even where the server only sends whole files. */
export function remoteFile(url, size, signal) {
  const read = async (start, end) => {
    if (start === end) return new Uint8Array(0);
    const response = await ask(url, { headers: { Range: `bytes=${start}-${end - 1}` }, signal });
    // If a whole file comes, the bytes before the part are skipped.
    let before = response.status === 206 ? 0 : start;
    if (before > 0 && end > MAX_BEGINNING_BYTES) {
      await response.body?.cancel();
      throw new NetError("status", `${url}: the server does not send parts of a file (HTTP ${response.status})`);
    }
    const bytes = new Uint8Array(end - start);
    let count = 0;
    for await (const piece of pieces(url, response, signal)) {
      const part = piece.subarray(before, before + bytes.length - count);
      before = Math.max(0, before - piece.length);
      bytes.set(part, count);
      count += part.length;
      if (count === bytes.length) break;
    }
    if (count < bytes.length) throw new NetError("cut", `${url}: expected ${bytes.length} bytes, received ${count}`, AGAIN);
    return bytes;
  };
  return { size, read };
}
