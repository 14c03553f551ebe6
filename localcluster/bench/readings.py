"""What is read from all processes of a cluster before and after a batch, and what changed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import urllib3

from localcluster.bench.exposition import Series, buckets, counter, grown, quantile, since
from localcluster.bench.usage import Usage, usage_of
from localcluster.cluster import LocalCluster
from localcluster.stack import Stack
from localcluster.waiting import until

QUANTILES = (0.5, 0.99)
VERBS = ("filter", "prioritize", "bind")

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REQUESTS = "apiserver_request_total"
_VERB_SECONDS = "gpudetour_extender_duration_seconds"
_WEBHOOK_SECONDS = "gpudetour_webhook_duration_seconds"
_BOUND = "gpudetour_extender_binds_total"
_REFUSED = "gpudetour_extender_bind_refused_total"
_PARTS = ("extender", "webhook")
_NOTHING = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All counters at one moment; texts are what the parts of gpudetour say on /metrics."""

    requests: Series
    texts: Mapping[str, str]
    usage: Mapping[str, Usage]


def read(cluster: LocalCluster, stack: Stack | None, *, settled: bool) -> Reading:
    """Read everything now, or, `settled`, once nothing but Leases was written for a moment."""
    texts = {}
    if stack is not None:
        texts = {part: fetched(f"{stack.side_url(part)}/metrics") for part in _PARTS}
    usage = usage_of(cluster.processes)
    requests = _settled_requests(cluster) if settled else {}
    return Reading(requests=requests, texts=texts, usage=usage)


def requests(cluster: LocalCluster) -> Series:
    """How often the API server was asked for what."""
    return counter(cluster.api.text("/metrics"), _REQUESTS)


def writes_per_pod(before: Reading, after: Reading, pods: int) -> dict[str, float]:
    """Requests that changed something, by resource and subresource."""
    found: defaultdict[str, float] = defaultdict(float)
    for labels, count in grown(before.requests, after.requests).items():
        named = dict(labels)
        if named["verb"] in _WRITES:
            parts = (named["resource"], named["subresource"])
            found["/".join(part for part in parts if part)] += count
    return {name: count / pods for name, count in found.items()}


def latencies(before: Reading, after: Reading) -> dict[tuple[str, float], float]:
    """Quantiles by what answered, in seconds; nothing of what was not asked."""
    if not after.texts:
        return {}
    answered = _observed(before, after, "extender", _VERB_SECONDS)
    admitted = _observed(before, after, "webhook", _WEBHOOK_SECONDS)
    found = {
        (verb, share): quantile(answered, share, verb=verb) for verb in VERBS for share in QUANTILES
    }
    found |= {("webhook", share): quantile(admitted, share) for share in QUANTILES}
    return {key: seconds for key, seconds in found.items() if not math.isnan(seconds)}


def refused_share(before: Reading, after: Reading) -> float | None:
    """Which part of the binds was refused; None where no extender of ours binds."""
    if not after.texts:
        return None
    bound, refused = (
        sum(grown(*(counter(each.texts["extender"], name) for each in (before, after))).values())
        for name in (_BOUND, _REFUSED)
    )
    return refused / (bound + refused) if bound + refused else None


def cpu_per_pod(before: Reading, after: Reading, pods: int) -> dict[str, float]:
    """Seconds of CPU of each process."""
    return {
        name: (used.cpu - before.usage.get(name, _NOTHING).cpu) / pods
        for name, used in after.usage.items()
    }


def fetched(url: str, ca_file: Path | None = None) -> str:
    """What a process says on /metrics."""
    ca_certs = str(ca_file) if ca_file is not None else None
    with urllib3.PoolManager(ca_certs=ca_certs, retries=False, timeout=5.0) as pool:
        return pool.request("GET", url).data.decode()


def _observed(before: Reading, after: Reading, part: str, name: str) -> Series:
    return since(*(buckets(each.texts[part], name) for each in (before, after)))


def _settled_requests(cluster: LocalCluster) -> Series:
    """The counts once nothing but Leases was written; kube-scheduler writes Events late."""
    last: Series = {}

    def quiet() -> Series | None:
        nonlocal last
        before, last = last, requests(cluster)
        changed = (dict(labels) for labels in grown(before, last))
        written = {labels["resource"] for labels in changed if labels["verb"] in _WRITES}
        return last if written <= {"leases"} else None

    return until(quiet, timeout=180, what="an API server that nobody writes to", interval=0.5)
