// Keeps the page's own files, so that it opens without a network and warm visits fetch nothing. Models are kept by the package (store.js).
//
// A version is all files together. The next one is fetched whole beside this one, checked, and takes over when no tab shows the old one any
// more, or when somebody asks for it: files of two versions never mix.

importScripts("./pkg/shell.js");

const OURS = "moebius-page-";
const { version, files } = self.SHELL;
const CACHE = OURS + version;
const SCOPE = self.registration.scope;

/** Every file as the list says it is, or none. What the browser's own cache has already is not sent again. */
async function install() {
  const cache = await caches.open(CACHE);
  try {
    await Promise.all(
      Object.entries(files).map(async ([path, sum]) => {
        const response = await fetch(new URL(path, SCOPE), { cache: "no-cache", integrity: `sha256-${sum}` });
        if (!response.ok) throw new Error(`${response.url}: HTTP ${response.status}`);
        await cache.put(new URL(path, SCOPE), response);
      }),
    );
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

async function removeOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
}

/** The name in the list of what an address means, if it is in there. */
function pathOf({ href, origin, pathname }) {
  if (!href.startsWith(SCOPE)) return undefined;
  const path = (origin + pathname).slice(SCOPE.length).replace(/^index\.html$/, "");
  return path in files ? path : undefined;
}

async function answer(request, path) {
  const cache = await caches.open(CACHE);
  return (await cache.match(new URL(path, SCOPE))) ?? (await fetch(request));
}

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(removeOthers()));
addEventListener("message", ({ data }) => data === "take over" && self.skipWaiting());
addEventListener("fetch", (event) => {
  const path = event.request.method === "GET" ? pathOf(new URL(event.request.url)) : undefined;
  if (path !== undefined) event.respondWith(answer(event.request, path));
});
