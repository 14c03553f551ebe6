"""Reading what processes say of themselves on /metrics. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

#: What a set of labels counts for; one line a series.
Series = Mapping[frozenset[tuple[str, str]], float]


def counter(text: str, name: str) -> Series:
    """All series of the counter `name`, which ends in `_total`."""
    return {
        frozenset(sample.labels.items()): sample.value
        for sample in _samples(text, name.removesuffix("_total"))
        if sample.name == name
    }


def grown(before: Series, after: Series) -> Series:
    """By how much each series grew; those that did not are left out."""
    return {
        labels: value - before.get(labels, 0.0)
        for labels, value in after.items()
        if value > before.get(labels, 0.0)
    }


def buckets(text: str, name: str) -> Series:
    """All buckets of the histogram `name`, with their bound as label `le`."""
    return {
        frozenset(sample.labels.items()): sample.value
        for sample in _samples(text, name)
        if sample.name == f"{name}_bucket"
    }


def since(before: Series, after: Series) -> Series:
    """What was counted between two moments; buckets that nothing came into are zero."""
    return {labels: value - before.get(labels, 0.0) for labels, value in after.items()}


def quantile(observed: Series, share: float, **labels: str) -> float:
    """The value below which `share` of what buckets counted is; NaN where that is nothing.

    Between the bounds of a bucket observations are taken to be spread evenly, as by Prometheus'
    `histogram_quantile`.
    """
    counts: defaultdict[float, float] = defaultdict(float)
    for found, value in observed.items():
        if labels.items() <= found:
            counts[float(dict(found)["le"])] += value
    bounds = sorted(counts)
    total = counts[bounds[-1]] if bounds else 0
    lower, below = 0.0, 0.0
    for bound in bounds:
        if total and counts[bound] >= share * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (share * total - below) / (counts[bound] - below)
        lower, below = bound, counts[bound]
    return float("nan")


def mean(text: str, name: str) -> float:
    """The mean of a histogram's observations over all its series; NaN where it has none."""
    totals: defaultdict[str, float] = defaultdict(float)
    for sample in _samples(text, name):
        totals[sample.name.removeprefix(name)] += sample.value
    return totals["_sum"] / totals["_count"] if totals["_count"] else float("nan")


def _samples(text: str, family: str) -> Iterator[Sample]:
    # kube-apiserver says a few megabytes; only the lines asked for are worth parsing.
    starts = (family, f"# TYPE {family}")
    lines = (line for line in text.splitlines() if line.startswith(starts))
    for found in text_string_to_metric_families("\n".join([*lines, ""])):
        if found.name == family:
            yield from found.samples
