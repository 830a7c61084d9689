// Small helpers for building elements. Text always becomes text nodes: what a model writes is never read as HTML.

export const $ = (id) => document.getElementById(id);

/** `element("p", { class: "x", onclick: f, data: { a: 1 } }, "text", child)` */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== undefined));
  return node;
}

export function select(label, options, value, onchange) {
  const list = element("select", { onchange: (event) => onchange(event.target.value) });
  for (const [key, text] of options) list.append(element("option", { value: key, selected: String(key) === String(value) }, text));
  return element("label", {}, `${label} `, list);
}

export const percent = (share) => `${Math.round(share * 100)} %`;

export { bytes } from "./pkg/units.js";

/** A token as one sees it in a list: white space made visible. */
export const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";

/** Gives the user a file. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
