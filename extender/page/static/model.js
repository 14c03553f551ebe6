// What the state that was fetched means: words, counts, and what a filter lets through. No DOM.

/** The states of a GPU in the order of the legend: what it is called and the sign in its cell. */
export const STATES = {
  free: { label: "Free", sign: "○" },
  held: { label: "Held", sign: "●" },
  shared: { label: "Shared", sign: "◐" },
  kept: { label: "Promised", sign: "…" },
  faulty: { label: "Faulty", sign: "✕" },
  lost: { label: "Lost", sign: "!" },
  unmonitored: { label: "Unmonitored", sign: "?" },
  unknown: { label: "Unknown", sign: "~" },
  withheld: { label: "Withheld", sign: "–" },
};

export function namespaceOf(pod) {
  return pod.slice(0, Math.max(0, pod.indexOf("/")));
}

export function nameOf(pod) {
  return pod.slice(pod.indexOf("/") + 1);
}

/** Return the words for who has a GPU, of each holder. */
export function holderWords(holder) {
  if (holder.stage === "kept") return "a pod that is being placed";
  const who = holder.pod || `a pod that is not known here (UID ${holder.uid})`;
  const more = [];
  if (holder.share) more.push(bytes(holder.share));
  if (holder.turn) more.push("in turns");
  if (holder.stage === "binding") more.push("being bound");
  if (holder.stage === "leaving") more.push("being deleted");
  return more.length ? `${who} (${more.join(", ")})` : who;
}

export function cellName(cell) {
  const number = cell.gpu ?? "without number";
  return cell.profile ? `GPU ${number}, MIG ${cell.profile}` : `GPU ${number}`;
}

/** Return one sentence about a cell, as a screen reader says it. */
export function cellWords(node, cell) {
  const parts = [cellName(cell), STATES[cell.state].label.toLowerCase()];
  if (cell.used) parts.push(`${cell.used} % given away`);
  const holders = cell.holders ?? [];
  if (holders.length) parts.push(`by ${holders.map(holderWords).join(" and ")}`);
  return `${parts.join(", ")}; ${cell.product || node.product || "unknown product"}`;
}

export function nodeWords(node) {
  const parts = [`Node ${node.name}`, `${node.free ?? 0} of ${node.total ?? 0} GPUs free`];
  parts.push(node.path ? `${node.path} path` : "no path");
  if (node.ready === false) parts.push("not ready");
  if (node.cordoned) parts.push("cordoned");
  if (node.why) parts.push(node.why);
  return parts.join(", ");
}

export function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || Number.isInteger(size) ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** Return how long ago a moment was, in one unit. */
export function ago(moment, now) {
  const seconds = Math.max(0, (now - Date.parse(moment)) / 1000);
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** Count cells by state, holders' GPUs by namespace, and cells by product. */
export function tally(nodes) {
  const states = new Map(Object.keys(STATES).map((state) => [state, 0]));
  const namespaces = new Map();
  const products = new Map();
  for (const node of nodes) {
    for (const cell of node.cells ?? []) {
      states.set(cell.state, (states.get(cell.state) ?? 0) + 1);
      const product = cell.product || node.product;
      if (product) products.set(product, (products.get(product) ?? 0) + 1);
      const holding = new Set();
      for (const { pod } of cell.holders ?? []) if (pod) holding.add(namespaceOf(pod));
      for (const space of holding) namespaces.set(space, (namespaces.get(space) ?? 0) + 1);
    }
  }
  return { states, namespaces, products };
}

/** A filter: `terms` must all be found, the others match where they are set. */
export function filterOf({ text = "", namespace = "", product = "", states = new Set() }) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
  return { terms, namespace, product, states, open: !terms.length && !namespace && !product && !states.size };
}

export function admitsCell(filter, node, cell) {
  if (filter.open) return true;
  if (filter.states.size && !filter.states.has(cell.state)) return false;
  const product = cell.product || node.product || "";
  if (filter.product && product !== filter.product) return false;
  const pods = (cell.holders ?? []).map((holder) => holder.pod || holder.uid || "");
  if (filter.namespace && !pods.some((pod) => namespaceOf(pod) === filter.namespace)) return false;
  return found(filter.terms, `${node.name} ${product} ${pods.join(" ")}`);
}

/** Tell whether a node without cells is to be shown: only what is written on it counts. */
export function admitsBare(filter, node) {
  if (filter.states.size || filter.namespace || filter.product) return false;
  return found(filter.terms, `${node.name} ${node.path ?? ""} ${node.why ?? ""}`);
}

export function admitsPod(filter, waiter) {
  if (filter.namespace && namespaceOf(waiter.pod) !== filter.namespace) return false;
  return found(filter.terms, `${waiter.pod} ${waiter.asks ?? ""} ${waiter.said ?? ""}`);
}

function found(terms, text) {
  if (!terms.length) return true;
  const hay = text.toLowerCase();
  return terms.every((term) => hay.includes(term));
}
