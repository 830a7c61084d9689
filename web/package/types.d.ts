/** A file that is read in slices: see `fileFromBlob` and `fileFromUrl`. */
export interface ModelFile {
  /** Length in bytes. */
  readonly size: number;
  /** The bytes from `start` up to `end`. */
  read(start: number, end: number): Promise<Uint8Array>;
}

/** The files of a checkpoint in Hugging Face layout, by name. */
export type ModelFiles = Record<string, ModelFile>;

export interface LoadOptions {
  /** What messages call the directory of the files, such as its address. */
  name?: string;
  /** `auto` (WebGPU), or `cpu` for the reference implementation, which needs no GPU. */
  device?: string;
  /** Format of the weight matrices on the device, as in `moebius run --quant`: `q4_0`, or by class `experts=q4_0,head=q8_0`; as stored by default. */
  quant?: string;
  /** Format of the KV cache: `f16` or `f32`; by default f16 where the weights of attention have four bits. */
  kvCache?: string;
  /** Positions of the KV cache. */
  context?: number;
  /**
   * Device memory for routed experts: `auto`, `all`, a size such as `512MiB` or a share such as `50%`. Experts without room are loaded when they
   * are chosen. By default all are on the device.
   */
  expertMemory?: string;
}

/** Whether the reference may stand in for a software GPU, and what a comparison of the two is kept under. */
export interface ReferenceMemory {
  fits: boolean;
  /** The model with its number of parameters, and the version of this package. */
  model?: string;
  neededBytes?: number;
  roomBytes?: number;
}

/** Tokens per second on WebGPU and on the reference, and whether the reference is at least 1.3 times as fast. */
export interface Comparison {
  gpu: number;
  reference: number;
  prefersReference: boolean;
}

/** What happens while a model is loaded: the device, once; then the weights; then, on a GPU, the kernels. */
export type LoadEvent =
  /** The device is chosen. `kind` is `discrete`, `integrated`, `software`, ... or `reference`. */
  | { type: "device"; name: string; kind: string; why: string }
  /** Weights on the device so far. */
  | { type: "weights"; doneBytes: number; totalBytes: number }
  /** Kernels compiled so far. */
  | { type: "kernels"; done: number; total: number };

export interface GenerateOptions {
  maxTokens?: number;
  /** 0, the default, always takes the most likely token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repeatPenalty?: number;
  seed?: number;
  /** Texts that end the output. */
  stop?: string[];
  /** Go on after the token that ends a text. */
  ignoreEnd?: boolean;
  /** Fill `Step.routing`. */
  trace?: boolean;
  /**
   * With `trace`: so many of the first tokens need no routing, because it is known from the call before, whose texts began alike. The first step then
   * has the routing of the tokens that were run, the last ones of the prompt.
   */
  knownRouting?: number;
  /** So many of the last tokens of the prompt are the beginning of this very text, which was broken off: its thinking goes on where it was. */
  resume?: number;
  /** Route otherwise than the model was trained to. */
  routing?: RoutingOverride;
}

/** An expert of one layer, or of every layer with a router. */
export interface ExpertAt {
  expert: number;
  /** Index of the layer in the model; without it, every layer is meant. */
  layer?: number;
}

/** What to change about the routing; nothing by default. */
export interface RoutingOverride {
  /** Experts of every token, in every layer with a router. */
  expertsPerToken?: number;
  /** Experts that are treated as if they were not there. */
  disabled?: ExpertAt[];
  /** An expert that every token takes first. */
  forced?: ExpertAt;
  /** Divides the router logits; 1 is as trained. */
  temperature?: number;
}

/** What the routers did with one token: `[MoE layer][rank]`, best expert first. */
export interface TokenRouting {
  experts: number[][];
  weights: number[][];
}

/** One new token. */
export interface Step {
  id: number;
  /** The text that is certain because of it, often empty. */
  text: string;
  /** The same with what the model thinks told apart from its answer. */
  parts: { part: "thinking" | "answer"; text: string }[];
  /** Of the tokens that were run for it: the whole prompt at first, then the token before. Empty without `trace`. */
  routing: TokenRouting[];
}

export interface TextToken {
  id: number;
  text: string;
}

/** A token that may come next. */
export interface Candidate {
  id: number;
  text: string;
  /** Of the softmax over the whole vocabulary, at temperature 1. */
  probability: number;
}

export interface Summary {
  promptIds: number[];
  ids: number[];
  text: string;
  /** What the model thought before its answer; empty for most models. */
  thinking: string;
  /** The text without the thinking and the marks around it. */
  answer: string;
  stop: "eos" | "max_tokens" | "stop_string" | "context_full" | "cancelled";
  prefillTokens: number;
  prefillSeconds: number;
  decodeSeconds: number;
  decodeRate: number;
  /** `[layer][expert]`: assignments of all tokens that were run. */
  expertLoads: number[][];
}

/** How often experts were there when a router chose them. */
export interface PagingCounts {
  tokens: number;
  requests: number;
  hits: number;
  /** How often a layer had to wait. */
  stops: number;
  loads: number;
  loadedBytes: number;
  waitSeconds: number;
}

export interface Paging {
  /** Of each layer with a router: experts that have room on the device, and experts in all. */
  slots: number[];
  experts: number[];
  slotBytes: number;
  /** Of single tokens, and of prompts. */
  decode: PagingCounts;
  prefill: PagingCounts;
}

export interface Description {
  device: {
    name: string;
    /** `discrete`, `integrated`, `software`, ... or `reference`. */
    kind: string;
    backend: string;
    driver: string;
    why: string;
    limits: Record<string, number | boolean | null> | null;
    allocatedBytes: number | null;
  };
  model: {
    family: string;
    layers: number;
    /** Indices of the layers with a router. */
    moeLayers: number[];
    /** Of the layer that has most. */
    experts: number;
    expertsPerToken: number;
    hiddenSize: number;
    vocabSize: number;
    parameters: number;
    activeParameters: number;
    context: number;
    /** Whether the model knows conversations; without, they become lines of `User:` and `Assistant:`. */
    chatTemplate: boolean;
  };
  /** Experts that were loaded when they were chosen, since the model was loaded; `null` where all are on the device. */
  paging: Paging | null;
  /** What was decided about the files, or left aside in them, a sentence each. */
  notes: string[];
  /** How the makers of the model want it to be sampled. */
  suggested: Required<Pick<GenerateOptions, "temperature" | "topK" | "topP" | "minP" | "repeatPenalty">>;
}

/** How evenly the experts of a layer are used. */
export interface Balance {
  /** Load of the busiest expert over that of the idlest; `null` where that has none. */
  ratio: number | null;
  /** Coefficient of variation: standard deviation over mean. */
  variation: number;
  /** 1 for equal loads, 0 for one expert that does everything. */
  entropy: number;
  /** Experts that were never chosen. */
  dead: number;
}

/** What `checkDevice` found. */
export interface CheckReport {
  passed: boolean;
  device: string;
  kernels: { kernel: string; cases: number; failed: number; maxAbsError: number; nmse: number }[];
  failures: { kernel: string; case: string; variant: string; detail: string }[];
  /** What `moebius report` writes (docs/device-report.schema.json), with `bench` null: what `measureDevice` gives belongs there. */
  report: Record<string, unknown> & { bench: unknown };
}

/** One turn of a conversation. Templates may know further fields. */
export interface ChatMessage {
  /** `system`, `user` or `assistant`; templates may know more. */
  role: string;
  /** Of an answer: `Summary.answer`, without its thinking. */
  content: string;
  /** Of an answer: `Summary.thinking`, for the template to leave out or not. */
  thinking?: string;
  [more: string]: unknown;
}

/** A conversation as the model sees it. */
export interface ChatPrompt {
  text: string;
  ids: number[];
  tokens: TextToken[];
  /** The model has no template. */
  plain: boolean;
  /** Texts that end the answer of a model without a template. */
  stop: string[];
  /** The longest answer: what the context leaves, or 128 where the model has no template and so does not know where an answer ends. */
  maxTokens: number;
}

export interface Stoppable {
  /** Aborting it ends the loop after the token that is being made, with `Summary.stop` as `cancelled`. */
  signal?: AbortSignal;
}

export interface Engine {
  /** Continues a prompt, token by token. Leaving the loop ends it: nothing is computed ahead. */
  generate(prompt: string | number[], options?: GenerateOptions & Stoppable): AsyncGenerator<Step, Summary, void>;
  /** Answers the last message; without `maxTokens`, for as long as `ChatPrompt.maxTokens` says. */
  chat(messages: ChatMessage[], options?: GenerateOptions & Stoppable): AsyncGenerator<Step, Summary, void>;
}
