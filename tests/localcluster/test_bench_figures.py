"""What the benchmark makes of what it saw: pure functions of text and outcomes."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import Path as NodePath
from localcluster.bench.exposition import buckets, counter, grown, mean, quantile, since
from localcluster.bench.figures import BIND_WRITES, SCHEDULED, Row, rows
from localcluster.bench.fleet import GPUS, filling, inventory, node_names
from localcluster.bench.outcome import Load, Outcome, State
from localcluster.bench.restart import NotTold, began_to_list
from localcluster.bench.site import WrongPlacement, check
from localcluster.bench.systems import System
from localcluster.bench.usage import usage_of
from localcluster.processes import Processes
from localcluster.waiting import until


def test_a_counter_is_read_by_its_labels_and_only_its_growth_counts() -> None:
    registry = CollectorRegistry()
    requests = prometheus_client.Counter("requests", "", ["verb"], registry=registry)
    prometheus_client.Counter("requests_of_another_kind", "", registry=registry).inc()
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

    assert quantile(buckets(text, "seconds"), share, verb="bind") == expected


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    registry = CollectorRegistry()
    Histogram("seconds", "", buckets=(2, 4), registry=registry).observe(9)

    assert quantile(buckets(generate_latest(registry).decode(), "seconds"), 0.5) == 4


def test_a_quantile_of_what_came_since_a_moment_knows_nothing_of_what_was_before() -> None:
    registry = CollectorRegistry()
    seconds = Histogram("seconds", "", buckets=(1, 2, 4), registry=registry)
    seconds.observe(0.5)
    before = buckets(generate_latest(registry).decode(), "seconds")
    for _ in range(2):
        seconds.observe(3)
    after = buckets(generate_latest(registry).decode(), "seconds")

    # Between two and four, for the bucket below that nothing came into still bounds it.
    assert quantile(since(before, after), 0.5) == 3


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

    assert math.isnan(quantile(buckets(text, "seconds"), 0.5))
    assert math.isnan(quantile(buckets(text, "minutes"), 0.5))
    assert math.isnan(mean(text, "seconds"))


def outcome(
    system: System,
    rate: float,
    *,
    number: int = 0,
    nodes: int = 100,
    state: State = State.EMPTY,
    **more: Any,
) -> Outcome:
    return Outcome(
        system=system,
        load=Load(nodes=nodes, pods=10, state=state),
        round=number,
        pods_per_second=rate,
        loop=1 / rate,
        **more,
    )


def figure(found: list[Row], what: str, system: System, nodes: int = 100) -> Row:
    (row,) = (r for r in found if (r.what, r.system, r.nodes) == (what, system, nodes))
    return row


def test_each_figure_is_compared_with_its_like_at_the_same_size_and_state() -> None:
    found = rows(
        [
            outcome(System.NATIVE, 100),
            outcome(System.STUB, 160),
            outcome(System.ANNOTATION, 80),
            outcome(System.PLUGIN, 5, state=State.FULL),
            outcome(System.NATIVE, 50, nodes=1000),
            outcome(System.PLUGIN, 60, nodes=1000),
        ]
    )

    alone = figure(found, SCHEDULED, System.NATIVE)
    assert (alone.value, alone.unit, alone.to_alone, alone.to_stub) == (100, "pods/s", None, None)
    stub = figure(found, SCHEDULED, System.STUB)
    assert (stub.to_alone, stub.to_stub) == (1.6, None)
    ours = figure(found, SCHEDULED, System.ANNOTATION)
    assert (ours.value, ours.to_alone, ours.to_stub) == (80, 0.8, 0.5)
    full = figure(found, SCHEDULED, System.PLUGIN)
    assert (full.state, full.to_alone, full.to_stub) == (State.FULL, None, None)
    assert figure(found, SCHEDULED, System.PLUGIN, nodes=1000).to_alone == 1.2


def test_ratios_are_taken_within_rounds_so_that_a_slow_minute_hits_both() -> None:
    found = rows(
        outcome(system, rate, number=number)
        for number, (alone, ours) in enumerate([(100, 90), (10, 9), (50, 45)])
        for system, rate in ((System.NATIVE, alone), (System.PLUGIN, ours))
    )

    row = figure(found, SCHEDULED, System.PLUGIN)
    assert (row.value, row.lowest, row.highest) == (45, 9, 90)
    assert row.to_alone == 0.9


def test_the_writes_of_a_bind_are_all_but_events_and_leases() -> None:
    writes = {"pods/binding": 1.0, "configmaps": 1.0, "events": 1.0, "leases": 0.1}
    found = rows([outcome(System.ANNOTATION, 1, writes_per_pod=writes)])

    assert figure(found, BIND_WRITES, System.ANNOTATION).value == 2
    assert figure(found, "API writes, events", System.ANNOTATION).value == 1


def test_what_only_one_system_wrote_is_told_of_it_alone() -> None:
    found = rows(
        [
            outcome(System.NATIVE, 1, writes_per_pod={"pods/status": 0.5}),
            outcome(System.STUB, 1),
            outcome(System.PLUGIN, 1),
        ]
    )

    assert [r.system for r in found if r.what == "API writes, pods/status"] == [System.NATIVE]


def test_without_a_count_of_writes_none_are_told() -> None:
    assert BIND_WRITES not in {row.what for row in rows([outcome(System.ANNOTATION, 1)])}


def test_nodes_have_gpus_of_their_own_that_are_all_linked() -> None:
    first, second = (inventory(name) for name in node_names(2))

    ids = {gpu.uuid for found in (first, second) for gpu in found.gpus}
    assert len(ids) == 2 * GPUS
    assert all(len(gpu.links) == GPUS - 1 for gpu in first.gpus)
    assert decode_inventory(encode_inventory(first)) == first


@pytest.mark.parametrize("path", [None, NodePath.PLUGIN, NodePath.ANNOTATION])
def test_nine_nodes_in_ten_are_filled_and_no_gpu_twice(path: NodePath | None) -> None:
    held = list(filling(node_names(100), path=path))

    on_node: Counter[str] = Counter()
    for each in held:
        limits = each["spec"]["containers"][0]["resources"]["limits"]
        on_node[each["spec"]["nodeName"]] += limits["nvidia.com/gpu"]
    assert set(on_node.values()) == {GPUS}
    assert len(on_node) == 90
    assert len(held) == 160
    check([], held=held)


def test_devices_that_are_held_twice_make_the_figures_worthless() -> None:
    first, *_ = filling(node_names(10), path=NodePath.ANNOTATION)
    again = {**first, "spec": {**first["spec"], "nodeName": "another"}}

    with pytest.raises(WrongPlacement, match="two pods"):
        check([again], held=[first])


def test_more_pods_than_gpus_on_a_node_make_the_figures_worthless() -> None:
    first, *_ = filling(node_names(10), path=None)

    with pytest.raises(WrongPlacement, match="more pods than it has GPUs"):
        check([first], held=[first])


def test_a_process_and_its_children_are_counted_together(tmp_path: Path) -> None:
    running = Processes(run=tmp_path / "run", logs=tmp_path / "logs", environment=os.environ)
    hold = "import os, time; kept = bytearray(b'x') * (1 << 26); os.fork(); time.sleep(60)"
    try:
        running.start("family", [sys.executable, "-c", hold], grace=0)

        def settled() -> bool:
            used = usage_of(running).get("family")
            return used is not None and used.anonymous > 1 << 26

        until(settled, timeout=20, what="the family's memory")
        # Both see the 64 MiB, and there they are once.
        assert usage_of(running)["family"].anonymous < 2 << 26
    finally:
        running.stop_all()


def test_the_moment_at_which_a_leader_begins_to_list_pods_is_read_from_its_log() -> None:
    log = """\
{"event": "leading, listing pods", "timestamp": "2026-01-02T03:04:05.500000Z"}
{"event": "leading, listing pods", "timestamp": "2026-01-02T03:04:06.500000Z"}
{"event": "bound"}
"""

    assert began_to_list(log) == datetime(2026, 1, 2, 3, 4, 6, 500000, UTC).timestamp()
    with pytest.raises(NotTold):
        began_to_list("nothing of the kind")
