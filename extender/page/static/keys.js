// Moving in the grid: one cell can be reached by Tab, arrows go on from there (the roving tabindex
// of the ARIA practices). Up and down go by what is seen, where nodes stand side by side.

const PAGE = 5;
// Rows get their true height only when they come into view, and may push the one that is meant out.
const FRAMES = 4;

export class Keys {
  #grid;
  #current = null;

  /** `onOpen(element)` is called for Enter, Space and a click. */
  constructor(grid, onOpen) {
    this.#grid = grid;
    grid.addEventListener("keydown", (event) => this.#key(event, onOpen));
    grid.addEventListener("focusin", (event) => this.#reach(event.target.closest(SPOT)));
    grid.addEventListener("click", (event) => {
      const spot = event.target.closest(SPOT);
      if (!spot) return;
      this.go(spot);
      onOpen(spot);
    });
  }

  /** Keep one spot reachable by Tab, after rows came and went. */
  settle() {
    if (this.#current?.isConnected && !this.#current.closest("[hidden]")) return;
    this.#reach(this.#rows()[0]?.firstElementChild ?? null);
  }

  go(spot) {
    if (!spot) return;
    this.#reach(spot);
    spot.focus({ preventScroll: true });
    show(spot, FRAMES);
  }

  #reach(spot) {
    if (spot === this.#current) return;
    this.#current?.setAttribute("tabindex", "-1");
    spot?.setAttribute("tabindex", "0");
    this.#current = spot;
  }

  #rows() {
    return [...this.#grid.children].filter((row) => !row.hidden);
  }

  #key(event, onOpen) {
    const spot = event.target.closest(SPOT);
    if (!spot || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") onOpen(spot);
    else {
      const target = this.#target(event, spot);
      if (target === undefined) return;
      this.go(target);
    }
    event.preventDefault();
  }

  #target(event, spot) {
    const rows = this.#rows();
    const row = rows.indexOf(spot.parentElement);
    const column = [...spot.parentElement.children].indexOf(spot);
    const at = (to, place) => {
      const found = rows[Math.min(rows.length - 1, Math.max(0, to))];
      return found?.children[Math.min(place, found.children.length - 1)];
    };
    const all = event.ctrlKey;
    switch (event.key) {
      case "ArrowRight":
        return spot.nextElementSibling ?? (row + 1 < rows.length ? at(row + 1, 0) : spot);
      case "ArrowLeft":
        return spot.previousElementSibling ?? (row > 0 ? at(row - 1, Infinity) : spot);
      case "ArrowDown":
        return row + abreast(rows) < rows.length ? at(row + abreast(rows), column) : spot;
      case "ArrowUp":
        return row - abreast(rows) >= 0 ? at(row - abreast(rows), column) : spot;
      case "PageDown":
        return at(row + PAGE * abreast(rows), column);
      case "PageUp":
        return at(row - PAGE * abreast(rows), column);
      case "Home":
        return at(all ? 0 : row, 0);
      case "End":
        return at(all ? rows.length - 1 : row, Infinity);
      default:
        return undefined;
    }
  }
}

const SPOT = "[role=gridcell], [role=rowheader]";

/** Return how many nodes stand side by side. */
function abreast(rows) {
  const top = rows[0]?.offsetTop;
  const next = rows.findIndex((row) => row.offsetTop !== top);
  return next > 0 ? next : Math.max(1, rows.length);
}

/** Scroll to a spot, and once more in each of the next frames while it has the focus. */
function show(spot, frames) {
  spot.scrollIntoView({ block: "nearest" });
  if (!frames) return;
  requestAnimationFrame(() => {
    if (document.activeElement === spot) show(spot, frames - 1);
  });
}
