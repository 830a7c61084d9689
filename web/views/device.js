// The device and its limits.

import { bytes, element, save } from "../dom.js";

export class DeviceView {
  /** `check()` resolves to what `checkDevice` found, `measure()` to how fast the loaded model runs on the device. */
  constructor(root, state, { check, measure }) {
    this.state = state;
    this.runCheck = check;
    this.runMeasure = measure;
    this.list = element("div");
    this.button = element("button", { type: "button", onclick: () => this.check() }, "Check this device");
    this.saveButton = element("button", { type: "button", onclick: () => this.saveReport() }, "Save a report");
    this.said = element("span", { role: "status" });
    this.result = element("div");
    root.replaceChildren(
      this.list,
      element("h3", {}, "Are its numbers right?"),
      element("p", { class: "hint" }, "Runs every kernel on this device and compares each result with the reference. It takes a minute or two on a CPU."),
      element("div", { class: "row bar" }, this.button, this.said),
      this.result,
    );
    this.update();
  }

  update() {
    const { info } = this.state;
    this.button.disabled = this.state.running;
    this.saveButton.disabled = this.state.running;
    if (!info) {
      this.list.replaceChildren(element("p", { class: "hint" }, "Load a model to see its device."));
      return;
    }
    if (this.shown === info) return;
    this.shown = info;
    const { device, model } = info;
    const limits = device.limits;
    const lines = [
      ["Device", `${device.name || "unnamed adapter"} (${device.kind}, ${device.backend})`],
      ["Chosen because", info.why?.prefers ? "it is quicker here than the adapter" : device.why],
      device.driver && ["Driver", device.driver],
      device.allocatedBytes !== null && ["Device memory in use", bytes(device.allocatedBytes)],
      limits && ["Largest binding", bytes(limits.maxBindingBytes)],
      limits && ["Largest buffer", bytes(limits.maxBufferBytes)],
      limits && ["Workgroup", `${limits.maxInvocations} invocations, ${bytes(limits.maxWorkgroupBytes)} of memory`],
      limits && ["Storage buffers per kernel", String(limits.maxStorageBuffers)],
      limits && ["shader-f16", limits.shaderF16 ? "yes" : "no, and not needed"],
      limits && ["Subgroups", limits.subgroupSize ? `of ${limits.subgroupSize}` : "no, and not needed"],
      ["Model", `${model.family}: ${model.layers} layers, ${model.moeLayers.length} of them with ${model.experts} experts, ${model.expertsPerToken} per token`],
      ["Parameters", `${millions(model.parameters)}, of which one token uses ${millions(model.activeParameters)}`],
      ["Context", `${model.context} tokens`],
    ].filter(Boolean);
    const list = lines.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]);
    this.list.replaceChildren(element("dl", {}, ...list));
  }

  /** Called with the number of cases done while a check runs. */
  progress(done, total) {
    this.said.textContent = `${done} of ${total} cases`;
  }

  async check() {
    this.button.disabled = true;
    this.result.replaceChildren();
    try {
      this.show(await this.runCheck());
    } catch (error) {
      this.said.textContent = error.message;
    } finally {
      this.button.disabled = false;
    }
  }

  show(report) {
    this.report = report.report;
    const cases = report.kernels.reduce((sum, { cases }) => sum + cases, 0);
    this.said.textContent = report.passed
      ? `All ${cases} cases passed: this device computes what the reference does.`
      : `${report.failures.length} of ${cases} cases failed.`;
    const columns = ["kernel", "cases", "failed", "max error", "NMSE"];
    const lines = report.kernels.map(({ kernel, cases, failed, maxAbsError, nmse }) => [
      kernel,
      String(cases),
      String(failed),
      exponential(maxAbsError),
      exponential(nmse),
    ]);
    const text = [[`moebius check in ${navigator.userAgent}`], columns, ...lines, ...report.failures.map((failure) => Object.values(failure))];
    const copy = element("button", { type: "button", onclick: () => this.copy(text.map((line) => line.join("\t")).join("\n")) }, "Copy as text");
    const cells = (tag, line) => line.map((cell) => element(tag, {}, cell));
    this.result.replaceChildren(
      element(
        "table",
        { class: "plain" },
        element("thead", {}, element("tr", {}, ...cells("th", columns))),
        element("tbody", {}, ...lines.map((line) => element("tr", { class: line[2] === "0" ? undefined : "failed" }, ...cells("td", line)))),
      ),
      ...report.failures.map(({ kernel, case: name, detail }) => element("p", { class: "hint" }, `${kernel}, ${name}: ${detail}`)),
      element("div", { class: "row bar" }, copy, this.saveButton),
      element("p", { class: "hint" }, "The report says what this device is, what the check found, and how fast the loaded model runs on it. Nothing is sent anywhere: attach the file to an issue of the project."),
    );
  }

  /** The same as `moebius report` writes. What cannot be measured is left out, and the check is kept. */
  async saveReport() {
    let failure;
    if (this.state.info) {
      this.said.textContent = "measuring how fast it is …";
      try {
        this.report.bench = await this.runMeasure();
      } catch (error) {
        failure = error.message;
      }
    }
    save(new Blob([`${JSON.stringify(this.report, null, 2)}\n`], { type: "application/json" }), "moebius-device-report.json");
    this.said.textContent = failure ? `saved, but without its speed: ${failure}` : "saved";
  }

  async copy(text) {
    await navigator.clipboard.writeText(text);
    this.said.textContent = "copied";
  }
}

function millions(count) {
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)} billion` : `${(count / 1e6).toFixed(1)} million`;
}

/** What could not be computed at all has no number. */
function exponential(value) {
  return value === null ? "none" : value.toExponential(1);
}
