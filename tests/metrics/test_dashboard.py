"""Every panel of the shipped dashboard has data: a real Prometheus scrapes real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from math import isfinite
from pathlib import Path

import pytest

from localcluster.monitoring.dashboard import FILE, Panel, rows
from localcluster.monitoring.prometheus import Prometheus
from localcluster.monitoring.site import MonitoredSite
from localcluster.waiting import until
from tests.cluster.pods import bound, gpu_pod, refused
from tests.metrics.scrapes import State, metrics_in
from tests.metrics.states import GOOD, NAMESPACE, PODS
from tests.metrics.test_alerts import ALERTS

pytestmark = pytest.mark.controlplane

PANELS = [panel for row in rows(rate_interval="1m") for panel in row.panels]


@pytest.fixture(scope="module")
def prometheus(
    site: MonitoredSite,
    states: dict[str, State],
    prometheus_program: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    """A server that sees some pods come and one wait; the site was in all states before it."""
    del states
    cluster = site.stack.cluster
    server = Prometheus(prometheus_program, cluster.processes, tmp_path_factory.mktemp("p"))
    server.start(site, rules=ALERTS)
    for pod in (gpu_pod("a"), gpu_pod("b"), gpu_pod("too-large", gpus=64)):
        cluster.api.create(PODS, pod)
    cluster.wait_for(f"{PODS}/b", bound, timeout=90)
    cluster.wait_for(f"{PODS}/too-large", lambda pod: refused(pod) != "", timeout=90)
    yield server
    cluster.processes.stop("prometheus")
    for name in ("a", "b", "too-large"):
        cluster.kubectl("delete", "pod", name, "-n", NAMESPACE, "--force", "--grace-period=0")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_of_a_panel_has_data(panel: Panel, prometheus: Prometheus) -> None:
    assert panel.queries

    def has_data(expression: str) -> bool:
        found = prometheus.instant(expression)
        return any(isfinite(value) for series in found for _, value in series.points)

    for query in panel.queries:
        until(partial(has_data, query.expression), timeout=90, what=f"data for {query.expression}")


def test_every_metric_of_a_panel_is_told_by_some_process(states: dict[str, State]) -> None:
    told = states[GOOD].second.names() | states["GPUDetourPodsWaitLong"].second.names()
    for panel in PANELS:
        for query in panel.queries:
            assert metrics_in(query.expression) <= told, panel.title


def test_shipped_alerts_load_and_none_is_raised_in_good_health(prometheus: Prometheus) -> None:
    until(lambda: prometheus.instant("up"), timeout=30, what="samples")
    # One is about to fire, for a moment, where a part took longer than a second to answer.
    until(lambda: not prometheus.firing(), timeout=30, what="no alert")


def test_rows_are_those_that_people_look_for() -> None:
    assert [row.title for row in rows(rate_interval="1m")] == [
        *("Fleet", "GPUs", "Extender", "Webhook", "Agents", "Certificates"),
    ]
    ids = [panel["id"] for panel in json.loads(FILE.read_text())["panels"]]
    assert len(set(ids)) == len(ids)
