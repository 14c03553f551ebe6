"""Scrapes of real processes as values, and as the series that promtool evaluates rules on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from prometheus_client.parser import text_string_to_metric_families

#: Seconds between samples in promtool's tests.
STEP = 15
#: How long a state lasts there, in samples: longer than any `for` and any threshold in time.
SAMPLES = 45 * 60 // STEP
_NAME = re.compile(r"\b(?:gpudetour_[a-z_]+|apiserver_[a-z_]+|up)\b")

_COUNTERS = ("_total", "_count", "_bucket", "_sum")
_LINE = re.compile(r"^([a-zA-Z_][a-zA-Z0-9_]*)[{ ]", re.MULTILINE)

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """What every target said at one time (seconds since 1970); None: it did not answer."""

    at: float
    texts: Mapping[str, str | None]
    labels: Mapping[str, Mapping[str, str]]

    def names(self) -> set[str]:
        """The names of all samples, and `up`."""
        return {"up", *(name for text in self.texts.values() for name in _LINE.findall(text or ""))}

    def series(self, names: frozenset[str]) -> dict[Key, float]:
        """Samples of these names with the labels of their target, as Prometheus stores them."""
        found: dict[Key, float] = {}
        for target, text in self.texts.items():
            labels = dict(self.labels[target])
            found["up", frozenset(labels.items())] = float(text is not None)
            for name, own, value in _samples(text or "", names):
                found[name, frozenset({**labels, **own}.items())] = value
        return {key: value for key, value in found.items() if key[0] in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of the site: two scrapes in it, one after the other.

    `growing` are gauges that nothing will set back while the state lasts.
    """

    first: Scrape
    second: Scrape
    growing: frozenset[str] = frozenset()

    def input_series(self, expression: str) -> Iterator[dict[str, str]]:
        """The series that an expression names, going on as they went between the scrapes.

        Counters, and what is `growing`, go on at their pace; all else stays as it is.
        """
        names = metrics_in(expression)
        before, now = self.first.series(names), self.second.series(names)
        seconds = self.second.at - self.first.at
        for key, value in now.items():
            name, labels = key
            grows = name.endswith(_COUNTERS) or name in self.growing
            step = (value - before.get(key, value)) / seconds * STEP if grows else 0.0
            text = ",".join(f'{label}="{_escaped(v)}"' for label, v in sorted(labels))
            if isfinite(value):
                values = f"{value!r}{'+' if step >= 0 else '-'}{abs(step)!r}x{SAMPLES}"
                yield {"series": f"{name}{{{text}}}", "values": values}


def metrics_in(expression: str) -> frozenset[str]:
    """The names of the metrics in a query."""
    return frozenset(_NAME.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)))


def _samples(text: str, names: frozenset[str]) -> Iterator[tuple[str, Mapping[str, str], float]]:
    # kube-apiserver says megabytes; only the lines asked for are worth parsing.
    starts = tuple(names)
    lines = [line for line in text.splitlines() if line.startswith(starts)]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
