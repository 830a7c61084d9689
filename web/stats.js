// The statistics of routing, from rows: one per token, `{ experts: [layer][rank], weights: [layer][rank] }`. Layers are those with a
// router, counted from 0. Nothing here knows the page. How even a load is says the library: `balance` of the package.

/** `[layer][expert]`: how often each expert was chosen in `rows`. */
export function loads(rows, numLayers, numExperts) {
  const counts = Array.from({ length: numLayers }, () => new Array(numExperts).fill(0));
  for (const { experts } of rows) {
    experts.forEach((chosen, layer) => chosen.forEach((expert) => counts[layer][expert]++));
  }
  return counts;
}

export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Shares that add up to 1; zeros where nothing was counted. */
export function shares(counts) {
  const total = sum(counts);
  return counts.map((count) => (total > 0 ? count / total : 0));
}

/** Half the sum of differences of two distributions: 0 the same, 1 nothing in common. */
export function distance(a, b) {
  return sum(a.map((share, index) => Math.abs(share - b[index]))) / 2;
}

/** For each layer, the shares of the experts that tokens with the text `wanted` went to, and how many such tokens there are. */
export function preferencesOfToken(tokens, rows, wanted, numLayers, numExperts) {
  const matching = rows.filter((_, index) => tokens[index].text.trim() === wanted);
  return { count: matching.length, layers: loads(matching, numLayers, numExperts).map(shares) };
}

/** The tokens that `expert` of `layer` was chosen for: `[{ text, count, total }]`, those it was chosen for most first. */
export function topTokens(tokens, rows, layer, expert) {
  const found = new Map();
  rows.forEach(({ experts }, index) => {
    const { text } = tokens[index];
    const entry = found.get(text) ?? { text, count: 0, total: 0 };
    entry.total++;
    if (experts[layer].includes(expert)) entry.count++;
    found.set(text, entry);
  });
  const used = [...found.values()].filter(({ count }) => count > 0);
  return used.sort((a, b) => b.count - a.count || b.count / b.total - a.count / a.total || (a.text < b.text ? -1 : 1));
}
