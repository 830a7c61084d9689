// Files as the engine reads them: `{ size, read(start, end) }`.

export function fileFromBlob(blob) {
  return {
    size: blob.size,
    read: async (start, end) => new Uint8Array(await blob.slice(start, end).arrayBuffer()),
  };
}

export async function fileFromUrl(url) {
  const head = await fetch(url, { method: "HEAD" });
  const size = Number(head.headers.get("Content-Length"));
  if (!head.ok || !size) throw new Error(`${url}: no file of a known length (HTTP ${head.status})`);
  return {
    size,
    read: async (start, end) => {
      const response = await fetch(url, { headers: { Range: `bytes=${start}-${end - 1}` } });
      if (response.status !== 206) throw new Error(`${url}: the server does not answer range requests (HTTP ${response.status})`);
      return new Uint8Array(await response.arrayBuffer());
    },
  };
}

/** The same files, which can no longer be read once the signal is aborted. */
export function stoppedBy(signal, files) {
  if (!signal) return files;
  const stopped = ({ size, read }) => ({
    size,
    read: async (start, end) => {
      signal.throwIfAborted();
      return await read(start, end);
    },
  });
  return Object.fromEntries(Object.entries(files).map(([name, file]) => [name, stopped(file)]));
}
