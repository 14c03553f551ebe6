// Puts the parts together: what was fetched goes to the grid, the queue, the panel and the words.

import { byId, count, digits, make, say } from "/page/dom.js";
import { Feed } from "/page/feed.js";
import { Filters, isDevice } from "/page/filters.js";
import { Grid, hint } from "/page/grid.js";
import { Keys } from "/page/keys.js";
import { Details } from "/page/details.js";
import { showQueue } from "/page/queue.js";
import { tally } from "/page/model.js";

// From so many nodes on, all of them matter more than each of them.
const MANY = 40;

const feed = new Feed(onChange);
const filters = new Filters(() => show(null));
const grid = new Grid(byId("grid"), { nodes: feed.nodes, spaces: filters.colourOf });
const details = new Details();
const keys = new Keys(byId("grid"), (spot) => open(spot));
let lookedUp = "";

function onChange(change) {
  if (change.full || change.gone.length || change.changed.some((name) => !grid.rows.has(name))) show(null, true);
  else if (change.changed.length || feed.failures === 0) show(change.changed);
  showLink();
  if (details.shown && (change.full || change.changed.includes(details.shown.node))) details.refresh();
}

/** Show what is there: some nodes, or all where `names` is null; `anew` where the set changed. */
function show(names, anew = false) {
  const counts = tally(feed.nodes.values());
  for (const [space] of [...counts.namespaces].sort((a, b) => b[1] - a[1])) filters.colourOf(space);
  filters.offer(counts);
  const filter = filters.filter;
  const view = filters.view || (feed.nodes.size > MANY ? "compact" : "detail");
  byId("grid").dataset.view = view;
  if (anew) grid.reset(filter);
  else if (names) grid.update(names, filter);
  const seen = grid.sift(filter);
  showWords(counts, seen, filter);
  showQueue(feed.queue, filter, Date.now());
  keys.settle();
  if (names === null) lookUp();
}

function showWords(counts, seen, filter) {
  const total = [...counts.states.values()].reduce((sum, number) => sum + number, 0);
  const sick = ["faulty", "lost", "unmonitored"].reduce((sum, state) => sum + counts.states.get(state), 0);
  const figures = [
    ["Nodes", feed.nodes.size, ""],
    ["GPUs", total, ""],
    ["Free", counts.states.get("free"), "free"],
    ["In use", counts.states.get("held") + counts.states.get("shared"), "held"],
    ["Unhealthy", sick, sick ? "faulty" : ""],
    ["Waiting", feed.queue.count, feed.queue.count ? "kept" : ""],
  ];
  const boxes = figures.map(([name, number, state]) => make("div", { "data-state": state }, make("dt", {}, name), make("dd", {}, digits(number))));
  byId("totals").replaceChildren(...boxes);
  const all = `${count(feed.nodes.size, "node")}, ${count(total, "GPU")}`;
  if (!isDevice(filters.text)) {
    say(byId("status"), filter.open ? `${all}.` : `${count(seen.nodes, "node")} and ${count(seen.cells, "GPU")} of ${all} match.`);
  }
  byId("nothing").hidden = seen.nodes > 0;
  say(byId("nothing"), feed.nodes.size ? "Nothing matches. Press Escape in the search, or Clear." : "No node with GPUs is known here.");
}

function showLink() {
  const time = feed.at?.toLocaleTimeString();
  const state = feed.stale ? "stale" : feed.why ? "following" : feed.at ? "live" : "waiting";
  byId("link").dataset.link = state;
  say(byId("link"), { stale: "Stale", following: "Not leading", live: "Live", waiting: "Connecting" }[state]);
  const banner = byId("banner");
  banner.hidden = state === "live" || state === "waiting";
  if (state === "stale") {
    say(banner, time ? `No answer from the extender. What you see is as of ${time}; it goes on by itself.` : "No answer from the extender yet.");
  } else if (state === "following") {
    say(banner, `This replica does not know which pods hold GPUs: ${feed.why}. Only what kubelet tells is shown, and nothing counts as free.`);
  }
}

function open(spot) {
  const row = spot.parentElement;
  details.open(row.dataset.node, [...row.children].indexOf(spot) - 1, spot);
}

/** Find a GPU by its UUID: the page holds none, so the extender is asked. */
async function lookUp() {
  const text = filters.text;
  if (!isDevice(text) || text === lookedUp) return;
  lookedUp = text;
  const answer = await fetch(`/page/device?id=${encodeURIComponent(text)}`, { cache: "no-store" }).catch(() => null);
  if (filters.text !== text) return;
  const found = answer?.ok ? await answer.json() : null;
  const spot = found && grid.rows.get(found.node)?.children[found.cell + 1];
  say(byId("status"), spot ? `${text} is on ${found.node}.` : `No GPU is known by ${text}.`);
  if (!spot) return;
  spot.scrollIntoView({ block: "center" });
  details.open(found.node, found.cell, byId("text"));
}

byId("grid").addEventListener("pointerover", (event) => {
  const spot = event.target.closest("[role=gridcell]");
  const node = spot && feed.nodes.get(spot.parentElement.dataset.node);
  const cell = node?.cells?.[[...spot.parentElement.children].indexOf(spot) - 1];
  if (cell) spot.title = hint(node, cell);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    byId("text").focus();
  } else if (event.key === "Escape" && !details.close() && typing) {
    filters.clear();
  }
});

// Ages go on although nothing changes.
setInterval(() => showQueue(feed.queue, filters.filter, Date.now()), 15000);
feed.start();
