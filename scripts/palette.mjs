// Writes web/palette.js: the colours of experts, one list for the page and for the report.
//
//   usage: node scripts/palette.mjs
//
// The first eight are Paul Tol's light scheme ("Colour Schemes", SRON/EPS/TN/09-002, 2021), without its pear, which comes too near to olive for
// deuteranopes. Each further one is, of a grid of lightness, chroma and hue in OKLCH, the colour farthest from all before it, to people with
// normal vision, deuteranopia and protanopia alike: the smallest of the three differences decides.

import { writeFile } from "node:fs/promises";
import { difference, lab, simulate } from "./vision.mjs";

const PUBLISHED = ["#77aadd", "#ee8866", "#eedd88", "#44bb99", "#ffaabb", "#aaaa00", "#99ddff", "#dddddd"];
const COUNT = 512;
const VISIONS = ["normal", "deuteranopia", "protanopia"];

const range = (from, to, step) => Array.from({ length: Math.round((to - from) / step) + 1 }, (_, index) => from + index * step);

/** `undefined` outside of sRGB. */
function fromOklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  if (linear.some((value) => value < 0 || value > 1)) return undefined;
  const byte = (value) => Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
  return `#${linear.map((value) => byte(value).toString(16).padStart(2, "0")).join("")}`;
}

const grid = range(0.5, 0.96, 0.02).flatMap((lightness) => range(0.02, 0.22, 0.02).flatMap((chroma) => range(0, 350, 10).map((hue) => fromOklch(lightness, chroma, hue))));
const seen = (colour) => VISIONS.map((vision) => lab(simulate(colour, vision)));
const candidates = [...new Set(grid.filter(Boolean))].map((colour) => ({ colour, seen: seen(colour), nearest: Infinity }));

const palette = [];
function take(colour) {
  palette.push(colour);
  const taken = seen(colour);
  for (const candidate of candidates) {
    const apart = Math.min(...taken.map((value, vision) => difference(value, candidate.seen[vision])));
    candidate.nearest = Math.min(candidate.nearest, apart);
  }
}

PUBLISHED.forEach(take);
while (palette.length < COUNT) take(candidates.reduce((best, next) => (next.nearest > best.nearest ? next : best)).colour);

const lines = range(0, COUNT - 8, 8).map((start) => `  ${palette.slice(start, start + 8).map((colour) => `"${colour}"`).join(", ")},`);
const head = "// Written by scripts/palette.mjs, which says how. The colour of expert 0 comes first.";
await writeFile(new URL("../web/palette.js", import.meta.url), `${head}\n\nexport const PALETTE = [\n${lines.join("\n")}\n];\n`);
