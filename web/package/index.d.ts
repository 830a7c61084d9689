import type { ModelFile } from "./moebius.js";

export * from "./moebius.js";
export { default } from "./moebius.js";

/** A `Blob`, such as a `File` that a person chose or one of the browser's own storage. */
export function fileFromBlob(blob: Blob): ModelFile;

/** A file on a server that answers range requests. Nothing is stored. */
export function fileFromUrl(url: string | URL): Promise<ModelFile>;
