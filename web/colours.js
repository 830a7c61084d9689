// The colours of experts: one for each number, the same in every model, layer and view.

import { PALETTE } from "./palette.js";

export const colourOf = (expert) => PALETTE[expert % PALETTE.length];

/** Black or white, whichever is read more easily on `colour`. */
export function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000000" : "#ffffff";
}

/** The custom properties that style.css paints an expert with. */
export function paint(expert) {
  const colour = colourOf(expert);
  return { "--expert": colour, "--on-expert": inkOn(colour) };
}
