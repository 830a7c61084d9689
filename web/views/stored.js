// What the browser keeps of fetched models.

import { bytes, element } from "../dom.js";

export class StoredView {
  live = false;

  constructor(root, call) {
    this.root = root;
    this.call = call;
    void this.update();
  }

  async update() {
    const { models, quota, usage, available } = await this.call("stored");
    if (!available) {
      const why = "Nothing is stored. (A private window may not store anything.)";
      this.root.replaceChildren(element("p", { class: "hint" }, why));
      return;
    }
    const items = models.map((model) => this.item(model));
    const total = usage === undefined ? "" : `This page uses ${bytes(usage)} of the ${bytes(quota)} that the browser grants.`;
    this.root.replaceChildren(
      element("p", { class: "hint" }, models.length === 0 ? "No model is stored. " : "", total),
      element("ul", { class: "stored" }, ...items),
    );
  }

  item({ base, bytes: size, files, complete }) {
    const said = element("span", { role: "status" });
    const verify = element("button", { type: "button" }, "Verify");
    const remove = element("button", { type: "button" }, "Remove");
    verify.addEventListener("click", async () => {
      verify.disabled = true;
      said.textContent = "reading …";
      const damaged = await this.call("verify", { base });
      said.textContent = damaged.length === 0 ? "every file is as it was fetched" : `damaged: ${damaged.join(", ")}. Remove it and load again.`;
      verify.disabled = false;
    });
    remove.addEventListener("click", async () => {
      remove.disabled = true;
      await this.call("remove", { base });
      await this.update();
    });
    const lines = files.map((file) =>
      element("li", {}, `${file.name}, ${bytes(file.size)} `, element("code", { class: "hash", title: `SHA-256 ${file.sha256}` }, file.sha256.slice(0, 12))),
    );
    return element(
      "li",
      {},
      element("h3", {}, base),
      element("p", {}, bytes(size), complete ? "" : ", not complete: loading it again goes on from here"),
      element("ul", {}, ...lines),
      element("div", { class: "row bar" }, verify, remove, said),
    );
  }
}
