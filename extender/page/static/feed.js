// Fetching the state, again and again while somebody looks: everything once, then what changed.

const EVERY = 1000;
const SLOWEST = 5000;
const PATIENCE = 8000;
// One answer may get lost; two in a row are worth telling.
const TOLERATED = 1;

/** Holds the nodes by name and the queue; calls `onChange(change)` after each answer. */
export class Feed {
  nodes = new Map();
  queue = { count: 0, shown: [], sums: [] };
  /** Why the replica that answers does not know who holds what; null where it does. */
  why = null;
  /** When the last answer came, and how many attempts failed since. */
  at = null;
  failures = 0;

  #version = "";
  #timer = 0;
  #busy = false;

  constructor(onChange) {
    this.onChange = onChange;
    document.addEventListener("visibilitychange", () => this.#turn());
    addEventListener("online", () => this.#turn());
  }

  get stale() {
    return this.failures > TOLERATED;
  }

  start() {
    this.#turn();
  }

  #turn() {
    clearTimeout(this.#timer);
    if (!document.hidden && !this.#busy) this.#fetch();
  }

  async #fetch() {
    this.#busy = true;
    try {
      const path = `/page/state?since=${encodeURIComponent(this.#version)}`;
      const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.#take(await answer.json());
    } catch {
      this.failures += 1;
      this.onChange({ changed: [], gone: [], full: false });
    }
    this.#busy = false;
    const pause = Math.min(SLOWEST, EVERY * 2 ** Math.max(0, this.failures - 1));
    if (!document.hidden) this.#timer = setTimeout(() => this.#turn(), pause);
  }

  #take(message) {
    const same = message.version === this.#version && this.failures === 0;
    const gone = message.full ? [...this.nodes.keys()] : message.gone;
    for (const name of gone) this.nodes.delete(name);
    for (const node of message.nodes) this.nodes.set(node.name, node);
    if (message.queue) this.queue = { count: 0, shown: [], sums: [], ...message.queue };
    Object.assign(this, { why: message.why, at: new Date(), failures: 0 });
    this.#version = message.version;
    if (same && !message.full) return;
    const changed = message.nodes.map((node) => node.name);
    this.onChange({ changed, gone: gone.filter((name) => !this.nodes.has(name)), full: message.full });
  }
}
