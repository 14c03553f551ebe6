// What the viewer wants to see: the form and the chips, kept in the address so that it can be sent.

import { byId, digits, make, mark, say } from "/page/dom.js";
import { STATES, filterOf } from "/page/model.js";

const FIELDS = ["text", "namespace", "product", "view", "colour"];
const COLOURS = 8;

export class Filters {
  #states = new Set();
  #spaces = new Map();
  #timer = 0;

  /** `onChange` is called after every change by the viewer. */
  constructor(onChange) {
    this.onChange = onChange;
    for (const [state, { label, sign }] of Object.entries(STATES)) {
      byId("states").append(chip(state, label, sign, { "data-state": state }));
    }
    this.#read();
    byId("filters").addEventListener("input", (event) => this.#changed(event.target.id === "text" ? 120 : 0));
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", (event) => {
      event.preventDefault();
      this.clear();
    });
    byId("states").addEventListener("click", (event) => this.#press(event.target.closest("button")));
    byId("spaces").addEventListener("click", (event) => {
      const space = event.target.closest("button")?.value;
      if (space === undefined) return;
      byId("namespace").value = byId("namespace").value === space ? "" : space;
      this.#changed(0);
    });
    addEventListener("hashchange", () => {
      this.#read();
      this.onChange();
    });
  }

  get filter() {
    const [text, namespace, product] = FIELDS.map((id) => wanted(id));
    // An address like GPU-… is looked up, not searched for: names of devices are not sent here.
    return filterOf({ text: isDevice(text) ? "" : text, namespace, product, states: this.#states });
  }

  get text() {
    return byId("text").value.trim();
  }

  get view() {
    return byId("view").value;
  }

  get byNamespace() {
    return byId("colour").value === "namespace";
  }

  clear() {
    for (const id of ["text", "namespace", "product"]) {
      byId(id).value = "";
      delete byId(id).dataset.wanted;
    }
    this.#states.clear();
    this.#changed(0);
  }

  /** Return the colour of a namespace, for as long as the page is open; 0 is shared by the rest. */
  colourOf = (space) => {
    if (!this.#spaces.has(space)) {
      this.#spaces.set(space, this.#spaces.size < COLOURS ? this.#spaces.size + 1 : 0);
    }
    return String(this.#spaces.get(space));
  };

  /** Offer what there is now, with numbers. */
  offer({ states, namespaces, products }) {
    for (const button of byId("states").children) {
      const number = states.get(button.value) ?? 0;
      say(button.lastElementChild, digits(number));
      mark(button, "aria-pressed", String(this.#states.has(button.value)));
      button.hidden = !number && !this.#states.has(button.value) && button.value !== "free";
    }
    options(byId("namespace"), namespaces);
    options(byId("product"), products);
    byId("spaces").hidden = !this.byNamespace;
    if (this.byNamespace) this.#offerSpaces(namespaces);
    document.body.toggleAttribute("data-by-namespace", this.byNamespace);
  }

  #offerSpaces(namespaces) {
    const most = [...namespaces].sort((a, b) => b[1] - a[1]);
    const chips = most.map(([space, number]) => {
      const found = chip(space, space, space.slice(0, 1), { "data-space": this.colourOf(space) });
      mark(found, "aria-pressed", String(byId("namespace").value === space));
      say(found.lastElementChild, digits(number));
      return found;
    });
    const key = chips.map((each) => each.outerHTML).join();
    if (byId("spaces").dataset.key === key) return;
    byId("spaces").dataset.key = key;
    byId("spaces").replaceChildren(...chips);
  }

  #press(button) {
    if (!button) return;
    if (!this.#states.delete(button.value)) this.#states.add(button.value);
    this.#changed(0);
  }

  #changed(pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      for (const id of FIELDS) delete byId(id).dataset.wanted;
      this.#write();
      this.onChange();
    }, pause);
  }

  #write() {
    const said = new URLSearchParams();
    for (const id of FIELDS) if (byId(id).value.trim()) said.set(id, byId(id).value.trim());
    if (this.#states.size) said.set("state", [...this.#states].join(","));
    history.replaceState(null, "", said.size ? `#${said}` : location.pathname);
  }

  #read() {
    const said = new URLSearchParams(location.hash.slice(1));
    for (const id of FIELDS) {
      const value = said.get(id) ?? "";
      byId(id).value = value;
      // A namespace may be asked for that is not among the choices yet.
      if (byId(id).value !== value) byId(id).dataset.wanted = value;
    }
    this.#states = new Set((said.get("state") ?? "").split(",").filter((state) => state in STATES));
  }
}

export function isDevice(text) {
  return /^(GPU|MIG)-\S{4,}$/.test(text.trim());
}

function wanted(id) {
  return (byId(id).dataset.wanted ?? byId(id).value).trim();
}

function chip(value, label, sign, attributes) {
  const swatch = make("span", { class: "swatch", "aria-hidden": "true", ...attributes }, sign);
  return make("button", { type: "button", value, "aria-pressed": "false" }, swatch, ` ${label} `, make("b"));
}

function options(select, counts) {
  const names = [...counts.keys()].sort();
  const chosen = select.dataset.wanted ?? select.value;
  if (chosen && !counts.has(chosen)) names.push(chosen);
  const key = names.join("\n");
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    select.replaceChildren(make("option", { value: "" }, "All"), ...names.map((name) => make("option", { value: name }, name)));
  }
  select.value = chosen;
  delete select.dataset.wanted;
}
