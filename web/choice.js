// What "Automatic" stands for: as the program decides it. A GPU, where there is one. Where a software device plays it, the reference, if the model fits
// in f32 with room to spare and a measurement, made once and kept, found it at least 1.3 times as fast.

/** Until it is measured, models of so many bytes are taken to be quicker on the reference: it reads them in a second or two. */
const SMALL_BYTES = 100e6;

/** Of a `GPUAdapterInfo`, or of nothing where there is no adapter. */
export function softwareName(info) {
  const { vendor, architecture, description, device, isFallbackAdapter } = info ?? {};
  const name = [vendor, architecture, device, description].filter(Boolean).join(" ");
  return isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|microsoft basic render/i.test(name) ? name || "software" : undefined;
}

/**
 * The device for a model that nobody chose one for, and why. `memory`: what `referenceMemory` says of it; `bytes`: of its files; `measured`: the
 * comparisons that are kept, by their key.
 */
export function decide({ software, memory, bytes, measured }) {
  if (!software) return { device: "auto" };
  if (!memory?.fits) return { device: "auto", why: memory?.neededBytes ? { kind: "large", ...memory } : undefined };
  const key = `${software}; ${memory.model}`;
  const comparison = measured?.[key];
  const prefers = comparison ? comparison.prefersReference : bytes <= SMALL_BYTES;
  return { device: prefers ? "cpu" : "auto", why: { kind: comparison ? "measured" : "guessed", key, comparison, prefers } };
}
