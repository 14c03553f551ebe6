// The pods that wait, and why.

import { byId, count, digits, make, say } from "/page/dom.js";
import { admitsPod, ago } from "/page/model.js";

/** Show the queue as far as the filter admits it. */
export function showQueue(queue, filter, now) {
  const shown = queue.shown.filter((waiter) => admitsPod(filter, waiter));
  const rest = queue.count - queue.shown.length;
  const more = rest ? `; the first ${digits(queue.shown.length)} are listed` : "";
  say(byId("queue-sum"), queue.count ? `${count(queue.count, "pod waits", "pods wait")}${more}.` : "No pod waits.");
  const sums = queue.sums.length > 1 ? queue.sums : [];
  replace(byId("queue-sums"), sums.map(([text, number]) => make("li", {}, make("b", {}, digits(number)), ` ${text}`)));
  replace(byId("queue"), shown.map((waiter) => item(waiter, now)));
}

function item(waiter, now) {
  const reasons = (waiter.reasons ?? []).map(([text, nodes]) => make("li", {}, make("b", {}, count(nodes, "node")), ` ${text}`));
  const since = waiter.created ? make("time", { datetime: waiter.created }, ago(waiter.created, now)) : null;
  const said = reasons.length ? make("ul", {}, ...reasons) : make("p", {}, outlook(waiter));
  return make(
    "li",
    {},
    make("div", { class: "pod" }, make("strong", {}, waiter.pod), since),
    make("p", { class: "quiet" }, [waiter.asks, waiter.priority ? `priority ${waiter.priority}` : ""].filter(Boolean).join("; ")),
    said,
  );
}

function outlook(waiter) {
  if (waiter.node) return `${waiter.node} was offered to kube-scheduler.`;
  return `${waiter.said}. See: kubectl describe pod.`;
}

/** Put in what is new, but leave alone what would look the same: a reader may be in the middle. */
function replace(list, items) {
  items.forEach((item, place) => {
    const old = list.children[place];
    if (!old) list.append(item);
    else if (!old.isEqualNode(item)) old.replaceWith(item);
  });
  while (list.children.length > items.length) list.lastElementChild.remove();
}
