// The fleet as a grid: a row for each node, a cell for each GPU. Rows are kept and repainted, so
// that focus and place survive an update; those off the screen cost no layout (see grid.css).

import { make, mark, say } from "/page/dom.js";
import { STATES, admitsBare, admitsCell, cellName, cellWords, holderWords, nameOf, namespaceOf, nodeWords } from "/page/model.js";

const FIRST = 60;
const MORE = 120;

const order = new Intl.Collator("en", { numeric: true });

export class Grid {
  /** Rows by node name. */
  rows = new Map();

  #element;
  #nodes;
  #filter;
  #spaces;
  #waiting = [];
  /** The row before which the next one belongs. */
  #next = null;
  #turn = 0;

  /** `nodes` is the feed's map, `spaces` gives a namespace's colour as a number. */
  constructor(element, { nodes, spaces }) {
    this.#element = element;
    this.#nodes = nodes;
    this.#spaces = spaces;
  }

  /** Show other nodes than before: all anew, the first at once and the others in the next frames. */
  reset(filter) {
    this.#filter = filter;
    const names = [...this.#nodes.keys()].sort(order.compare);
    for (const [name, row] of this.rows) {
      if (this.#nodes.has(name)) continue;
      row.remove();
      this.rows.delete(name);
    }
    mark(this.#element, "aria-rowcount", String(names.length));
    this.#waiting = names.map((name, place) => [name, place]);
    this.#next = this.#element.firstElementChild;
    cancelAnimationFrame(this.#turn);
    this.#some(FIRST);
  }

  /** Paint some nodes again; `flash` those that changed by themselves. */
  update(names, filter) {
    this.#filter = filter;
    const late = new Set(this.#waiting.map(([name]) => name));
    for (const name of names) {
      const row = this.rows.get(name);
      if (row && !late.has(name)) this.#paint(row, this.#nodes.get(name), true);
    }
  }

  /** Show only what the filter admits; returns how many nodes and cells that are. */
  sift(filter) {
    this.#filter = filter;
    let nodes = 0;
    let cells = 0;
    for (const node of this.#nodes.values()) {
      const row = this.rows.get(node.name);
      const admitted = this.#admit(node, row);
      if (admitted >= 0) nodes += 1;
      cells += Math.max(0, admitted);
    }
    return { nodes, cells };
  }

  #some(number) {
    for (const [name, place] of this.#waiting.splice(0, number)) this.#set(this.#row(name, place));
    if (this.#waiting.length) this.#turn = requestAnimationFrame(() => this.#some(MORE));
  }

  /** Put a row in its place; who stands there already is not moved, for that would take focus. */
  #set(row) {
    if (row && row === this.#next) this.#next = row.nextElementSibling;
    else if (row) this.#element.insertBefore(row, this.#next);
  }

  #row(name, place) {
    const node = this.#nodes.get(name);
    if (!node) return null;
    let row = this.rows.get(name);
    if (!row) {
      row = make("div", { role: "row", class: "node" });
      row.append(nodeHead());
      this.rows.set(name, row);
    }
    mark(row, "aria-rowindex", String(place + 1));
    this.#paint(row, node, false);
    return row;
  }

  #paint(row, node, flash) {
    row.dataset.node = node.name;
    paintHead(row.firstElementChild, node);
    const cells = node.cells ?? [];
    while (row.children.length > cells.length + 1) row.lastElementChild.remove();
    while (row.children.length <= cells.length) row.append(emptyCell());
    cells.forEach((cell, place) => this.#paintCell(row.children[place + 1], node, cell, flash));
    this.#admit(node, row);
  }

  #paintCell(element, node, cell, flash) {
    const words = cellWords(node, cell);
    if (element.getAttribute("aria-label") === words) return;
    mark(element, "aria-label", words);
    element.dataset.state = cell.state;
    const [holder, ...others] = cell.holders ?? [];
    const space = holder?.pod ? namespaceOf(holder.pod) : "";
    element.dataset.space = space ? this.#spaces(space) : "";
    element.style.setProperty("--used", cell.state === "shared" && cell.used ? `${cell.used}%` : "100%");
    const [sign, number, who] = element.children;
    say(sign, STATES[cell.state].sign);
    say(number, cell.profile ? `${cell.gpu ?? ""} ${cell.profile}` : String(cell.gpu ?? ""));
    const more = others.length ? ` +${others.length}` : "";
    say(who, holder ? `${holder.pod ? nameOf(holder.pod) : "not known"}${more}` : STATES[cell.state].label);
    if (flash) blink(element);
  }

  /** Return how many cells of a node are admitted; -1 where the node is not to be shown. */
  #admit(node, row) {
    const cells = node.cells ?? [];
    const admitted = cells.map((cell) => admitsCell(this.#filter, node, cell));
    const number = admitted.filter(Boolean).length;
    const shown = number > 0 || (!cells.length && admitsBare(this.#filter, node));
    if (row) {
      row.hidden = !shown;
      admitted.forEach((yes, place) => row.children[place + 1]?.toggleAttribute("data-dim", !yes));
    }
    return shown ? number : -1;
  }
}

/** What a pointer that rests on a cell shows. */
export function hint(node, cell) {
  const holders = (cell.holders ?? []).map(holderWords);
  return [`${cellName(cell)} on ${node.name}: ${STATES[cell.state].label}`, ...holders].join("\n");
}

function nodeHead() {
  const parts = ["name", "badge", "free"].map((part) => make("span", { class: part }));
  return make("div", { role: "rowheader", class: "head", tabindex: "-1" }, ...parts, make("span", { class: "why" }));
}

function paintHead(head, node) {
  const [name, badge, free, why] = head.children;
  mark(head, "aria-label", nodeWords(node));
  say(name, node.name);
  const troubled = node.ready === false || node.cordoned;
  say(badge, node.ready === false ? "not ready" : node.cordoned ? "cordoned" : node.path || "no agent");
  badge.toggleAttribute("data-troubled", Boolean(troubled || node.why));
  say(free, `${node.free ?? 0}/${node.total ?? 0}`);
  say(why, node.why ?? "");
}

function emptyCell() {
  const parts = ["sign", "number", "who"].map((part) => make("span", { class: part }));
  return make("div", { role: "gridcell", class: "cell", tabindex: "-1" }, ...parts);
}

function blink(element) {
  element.removeAttribute("data-new");
  requestAnimationFrame(() => element.setAttribute("data-new", ""));
}
