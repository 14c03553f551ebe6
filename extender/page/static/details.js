// The panel about one GPU or one node: fetched when it is opened, and again when the node changes.

import { byId, count, make, say } from "/page/dom.js";
import { STATES, bytes, cellName, holderWords } from "/page/model.js";

const SOURCES = {
  nvml: "NVML",
  "nvidia-smi": "nvidia-smi, because NVML does not answer",
  proc: "/proc/driver/nvidia, because NVML does not answer",
  sysfs: "the PCI bus, because the driver does not answer",
};

export class Details {
  /** What is shown: a node's name and the place of a cell, or -1 for the node itself. */
  shown = null;
  #from = null;
  #asked = 0;

  constructor() {
    byId("close").addEventListener("click", () => this.close());
  }

  /** Show a node or one of its GPUs; focus goes there, and back to `from` when it is closed. */
  async open(node, place, from) {
    this.shown = { node, place };
    this.#from = from;
    await this.refresh();
    if (byId("details").hidden) return;
    byId("details-name").focus({ preventScroll: true });
    byId("details").scrollIntoView({ block: "nearest" });
  }

  close() {
    if (!this.shown) return false;
    this.shown = null;
    byId("details").hidden = true;
    this.#from?.focus({ preventScroll: true });
    return true;
  }

  async refresh() {
    const { node, place } = this.shown;
    const turn = ++this.#asked;
    let found = null;
    try {
      const answer = await fetch(`/page/node?name=${encodeURIComponent(node)}`, { cache: "no-store" });
      found = answer.ok ? await answer.json() : null;
    } catch {
      // The banner says that there is no answer; what was shown stays.
      if (!byId("details").hidden) return;
    }
    if (turn !== this.#asked || !this.shown) return;
    const cell = found?.view.cells?.[place];
    say(byId("details-name"), cell ? `${cellName(cell)} on ${node}` : node);
    const facts = found ? (cell ? ofGpu(found, cell, place) : ofNode(found)) : [make("p", {}, "It is not there any more.")];
    const list = make("div", {}, ...facts);
    if (!list.isEqualNode(byId("facts").firstElementChild)) byId("facts").replaceChildren(list);
    byId("details").hidden = false;
  }
}

function ofGpu(found, cell, place) {
  const device = found.devices?.[place] ?? {};
  const state = make("span", { class: "swatch", "data-state": cell.state, "aria-hidden": "true" }, STATES[cell.state].sign);
  return [
    make("p", { class: "state" }, state, [STATES[cell.state].label, device.reason].filter(Boolean).join(": ")),
    list([
      ["Since", device.since ? new Date(device.since).toLocaleString() : ""],
      ["Held by", (cell.holders ?? []).map(holderWords).join("\n")],
      ["Given away", cell.used ? `${cell.used} % of its memory` : ""],
      ["Product", device.product],
      ["UUID", device.id, "code"],
      ["Memory", device.memory ? bytes(device.memory) : ""],
      ["Compute", [device.compute, device.architecture].filter(Boolean).join(", ")],
      ["PCI bus", device.bus, "code"],
      ["NUMA node", device.numa ?? ""],
      ["Links", (device.bonds ?? []).map(bondWords).join("\n")],
      ["Node", nodeLine(found.view)],
      ["Driver", driverWords(found)],
    ]),
  ];
}

function ofNode(found) {
  const view = found.view;
  return [
    view.why ? make("p", { class: "state" }, `Nothing can be given out: ${view.why}`) : null,
    list([
      ["GPUs", `${view.free ?? 0} of ${view.total ?? 0} free`],
      ["Path", view.path || "none: no agent has spoken"],
      ["Why this path", found.path_reason],
      ["Node", [view.ready === false ? "not ready" : "ready", view.cordoned ? "cordoned" : ""].filter(Boolean).join(", ")],
      ["Product", view.product],
      ["Driver", driverWords(found)],
      ["Found by", SOURCES[found.source] ?? ""],
      ["Trouble", found.trouble],
    ]),
    make("ul", { class: "holders" }, ...(view.cells ?? []).map((cell) => make("li", {}, cellLine(cell)))),
  ];
}

function cellLine(cell) {
  const holders = (cell.holders ?? []).map(holderWords).join(", ");
  return `${cellName(cell)}: ${STATES[cell.state].label.toLowerCase()}${holders ? `, ${holders}` : ""}`;
}

function nodeLine(view) {
  return [`${view.name}`, view.path ? `${view.path} path` : "no path", view.why].filter(Boolean).join(", ");
}

function driverWords(found) {
  return [found.driver, found.cuda ? `CUDA ${found.cuda}` : ""].filter(Boolean).join(", ");
}

function bondWords(bond) {
  const way = bond.nvlinks ? count(bond.nvlinks, "NVLink") : `PCIe ${bond.pcie || "of unknown distance"}`;
  return `${way} to GPU ${bond.peers.join(", ")}`;
}

function list(rows) {
  const shown = rows.filter(([, text]) => text !== undefined && text !== "");
  return make("dl", { class: "facts" }, ...shown.flatMap(([name, text, tag]) => [
    make("dt", {}, name),
    make("dd", {}, tag ? make(tag, {}, String(text)) : String(text)),
  ]));
}
