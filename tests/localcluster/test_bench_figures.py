"""What the benchmark makes of what it saw: pure functions of text and outcomes."""

from __future__ import annotations

import json
import math
import os
from io import StringIO
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from rich.console import Console

from gpus.annotations import decode_inventory, encode_inventory
from localcluster.bench.experiment import Load, Outcome
from localcluster.bench.exposition import counter, grown, mean, quantile
from localcluster.bench.fleet import GPUS, inventory, node_names
from localcluster.bench.systems import System
from localcluster.bench.table import Row, as_json, rendered, rows
from localcluster.bench.usage import usage_of
from localcluster.processes import Processes
from localcluster.waiting import until


def test_a_counter_is_read_by_its_labels_and_only_its_growth_counts() -> None:
    registry = CollectorRegistry()
    requests = Counter("requests", "", ["verb"], registry=registry)
    Counter("requests_of_another_kind", "", registry=registry).inc()
    requests.labels("POST").inc(2)
    before = counter(generate_latest(registry).decode(), "requests_total")
    requests.labels("POST").inc(3)
    requests.labels("PUT").inc()
    after = counter(generate_latest(registry).decode(), "requests_total")

    assert before == {frozenset({("verb", "POST")}): 2}
    assert grown(before, after) == {
        frozenset({("verb", "POST")}): 3,
        frozenset({("verb", "PUT")}): 1,
    }


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.25, 1.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)],
)
def test_a_quantile_lies_evenly_between_the_bounds_of_its_bucket(
    share: float, expected: float
) -> None:
    registry = CollectorRegistry()
    seconds = Histogram("seconds", "", ["verb"], buckets=(2, 4), registry=registry)
    for value in (1, 1, 3, 3):
        seconds.labels("bind").observe(value)
    seconds.labels("filter").observe(100)
    text = generate_latest(registry).decode()

    assert quantile(text, "seconds", share, verb="bind") == expected


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    registry = CollectorRegistry()
    Histogram("seconds", "", buckets=(2, 4), registry=registry).observe(9)

    assert quantile(generate_latest(registry).decode(), "seconds", 0.5) == 4


def test_a_mean_is_that_of_all_series() -> None:
    registry = CollectorRegistry()
    seconds = Histogram("seconds", "", ["result"], registry=registry)
    for result, value in (("scheduled", 1), ("scheduled", 2), ("error", 6)):
        seconds.labels(result).observe(value)

    assert mean(generate_latest(registry).decode(), "seconds") == 3


def test_a_quantile_of_nothing_is_not_a_number() -> None:
    registry = CollectorRegistry()
    Histogram("seconds", "", registry=registry)
    text = generate_latest(registry).decode()

    assert math.isnan(quantile(text, "seconds", 0.5))
    assert math.isnan(quantile(text, "minutes", 0.5))
    assert math.isnan(mean(text, "seconds"))


def outcome(system: System, rate: float, *, nodes: int = 100, writes: float = 1.0) -> Outcome:
    return Outcome(
        system=system,
        load=Load(nodes=nodes, pods=10),
        pods_per_second=rate,
        loop=1 / rate,
        writes_per_pod={"pods/binding": writes},
        memory={"etcd": 3 << 20},
    )


def by_name(found: list[Row]) -> dict[tuple[str, int], Row]:
    return {(row.name, row.nodes): row for row in found}


def test_each_figure_is_compared_with_the_scheduler_alone_at_the_same_size() -> None:
    found = by_name(
        rows(
            [
                outcome(System.NATIVE, 100),
                outcome(System.ANNOTATION, 80, writes=2),
                outcome(System.NATIVE, 50, nodes=1000),
                outcome(System.PLUGIN, 60, nodes=1000),
            ]
        )
    )

    alone = found["scheduled: kube-scheduler alone", 100]
    assert (alone.value, alone.baseline, alone.ratio) == (100, None, None)
    small = found["scheduled: annotation path", 100]
    assert (small.value, small.unit, small.baseline, small.ratio) == (80, "pods/s", 100, 0.8)
    assert found["scheduled: plugin path", 1000].ratio == 1.2
    assert found["API writes, all: annotation path", 100].ratio == 2
    assert found["memory, etcd: plugin path", 1000].value == 3


def test_of_repeated_experiments_the_median_is_told() -> None:
    found = by_name(rows(outcome(System.NATIVE, rate) for rate in (10, 90, 20)))

    assert found["scheduled: kube-scheduler alone", 100].value == 20


def test_the_table_for_people_and_the_rows_for_programs_are_the_same() -> None:
    found = rows([outcome(System.NATIVE, 100), outcome(System.PLUGIN, 110)])
    console = Console(width=120, file=StringIO())
    console.print(rendered(found, title="speed"))
    shown = cast(StringIO, console.file).getvalue()

    written = json.loads(json.dumps(as_json(found)))
    assert len(written) == len(found)
    for row in written:
        assert set(row) == {"name", "nodes", "value", "unit", "baseline", "ratio"}
        assert row["name"] in shown


def test_nodes_have_gpus_of_their_own_that_are_all_linked() -> None:
    first, second = (inventory(name) for name in node_names(2))

    ids = {gpu.uuid for node in (first, second) for gpu in node.gpus}
    assert len(ids) == 2 * GPUS
    assert all(len(gpu.links) == GPUS - 1 for gpu in first.gpus)
    assert decode_inventory(encode_inventory(first)) == first


def test_a_process_and_its_children_are_counted_together(tmp_path: Path) -> None:
    running = Processes(run=tmp_path / "run", logs=tmp_path / "logs", environment=os.environ)
    try:
        running.start("alone", ["sleep", "60"], grace=0)
        running.start("family", ["/bin/sh", "-c", "sleep 60 & sleep 60 & wait"], grace=0)

        def all_there() -> bool:
            used = usage_of(running)
            return used["family"].memory >= 2 * used["alone"].memory > 0

        until(all_there, timeout=20, what="three processes in one family")
    finally:
        running.stop_all()
