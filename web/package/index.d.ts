import type { Engine, LoadEvent, LoadOptions, ModelFile, ModelFiles } from "./moebius.js";

export * from "./moebius.js";
export { default } from "./moebius.js";

declare module "./moebius.js" {
  namespace Engine {
    /** Fetches a model as `fetchModel` does, and loads it. */
    function open(model: ModelName, options?: LoadOptions & FetchOptions, onEvent?: (event: FetchEvent | LoadEvent) => void): Promise<Engine>;
  }
}

/**
 * `org/name`, `org/name@revision` or `org/name:Q4_K_M` (for one of several GGUF files) on the Hugging Face hub, the address of a GGUF file or of
 * a folder with `config.json` and the weights, or such a folder with the address of a list of its files: JSON of the form `{ [file]: { size, sha256 } }`.
 */
export type ModelName = string | URL | { url: string | URL; list: string | URL };

export interface FetchOptions {
  /** Ends fetching and loading; the promise is rejected with its reason. What has been stored so far stays, and the next call goes on from there. */
  signal?: AbortSignal;
  /** Whether to keep the files in the storage of the browser, which only workers can write to; true by default. */
  store?: boolean;
}

/** What happens while files are fetched. */
export type FetchEvent =
  /** A file is looked at; its content is small, or not fetched yet. */
  | { type: "look"; file: string }
  /** A file is arriving. Bytes of all files of the model; `totalBytes` is 0 where a server does not say. */
  | { type: "fetch"; file: string; doneBytes: number; totalBytes: number }
  /** The server is busy, and is asked again after this time. */
  | { type: "wait"; file: string; seconds: number }
  /** Something that a person should know, such as that nothing is stored. */
  | { type: "note"; text: string };

export interface FetchedModel {
  files: ModelFiles;
  /** The address of the model, for messages. */
  name: string;
  /** Where the files are, in words. */
  from: "storage" | "network" | "network, not stored";
}

/**
 * The files of a model: from the storage of the browser where they are there, over the network otherwise. A model that cannot be run is refused
 * before its weights are fetched. Fetched files are checked by size and, on the hub, by checksum; interrupted ones are resumed.
 */
export function fetchModel(model: ModelName, options?: FetchOptions, onEvent?: (event: FetchEvent) => void): Promise<FetchedModel>;

/** A model in the storage of the browser. */
export interface StoredModel {
  /** Its address, which names it for `removeModel` and `verifyModel`. */
  base: string;
  files: { name: string; size: number; sha256: string }[];
  bytes: number;
  /** Whether all files are there. */
  complete: boolean;
}

/** The stored models, and what the browser says about its storage, in bytes. `available`: whether anything can be stored here. */
export function listStored(): Promise<{ models: StoredModel[]; quota: number | undefined; usage: number | undefined; available: boolean }>;

export function removeModel(base: string): Promise<void>;

/** Reads every stored byte of a model again; the names of the files that are not what was fetched. */
export function verifyModel(base: string): Promise<string[]>;

/** A `Blob`, such as a `File` that a person chose or one of the browser's own storage. */
export function fileFromBlob(blob: Blob): ModelFile;

/** A file on a server that answers range requests. Nothing is stored. */
export function fileFromUrl(url: string | URL): Promise<ModelFile>;

/** The model in a folder that a person chose (`<input type="file" webkitdirectory>`), and the name of the folder. */
export function filesFromFolder(list: File[]): { name: string; files: ModelFiles };

/** The model in a GGUF file that a person chose, or in all files of one that is split. */
export function filesFromParts(list: File[]): { name: string; files: ModelFiles };

/** A request that failed. `kind` says how: `offline`, `timeout`, `cors`, `missing`, `denied`, `damaged` and others. */
export class NetError extends Error {
  readonly kind: string;
  readonly hint?: string;
}
