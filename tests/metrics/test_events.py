"""The Events that a living site leaves behind tell its story, and are few.

By then GPUs of a node were lost and came back, pods were bound, refused and held up, parts and the
API server were away (`tests.metrics.states`).
"""

from __future__ import annotations

from collections import Counter

import pytest

from localcluster.monitoring.site import MonitoredSite
from localcluster.waiting import until
from tests.cluster.pods import Object
from tests.metrics.scrapes import State
from tests.metrics.states import NAMESPACE

pytestmark = pytest.mark.controlplane

#: Event objects about one thing that are bearable to read; ten of a reason are told apart.
MOST_OF_AN_OBJECT = 12


def _of_gpudetour(site: MonitoredSite, namespace: str) -> list[Object]:
    found: list[Object] = site.stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/events")[
        "items"
    ]
    return [e for e in found if (e.get("source") or {}).get("component", "").startswith("gpudet")]


def test_a_pod_tells_what_it_got(site: MonitoredSite, states: dict[str, State]) -> None:
    del states

    def described() -> str:
        shown = site.stack.cluster.kubectl("describe", "pod", "runs", "-n", NAMESPACE)
        return shown if "GPUsAssigned" in shown else ""

    shown = until(described, timeout=60, what="the Event on the pod")
    (line,) = [line for line in shown.splitlines() if "GPUsAssigned" in line]
    assert line.split()[0] == "Normal"
    assert "gpudetour-extender" in line
    said = line.partition("gpudetour-extender")[2].strip()
    assert said.startswith("Got GPU-")
    assert said.endswith("-node (path annotation)")


def test_a_node_tells_what_became_of_it(site: MonitoredSite, states: dict[str, State]) -> None:
    del states
    shown = site.stack.cluster.kubectl("describe", "node", "bad-node")
    events = shown.partition("\nEvents:")[2]
    assert "GPUPathChanged" in events
    (lost,) = [line for line in events.splitlines() if "GPU 0 " in line and "is lost" in line]
    assert lost.split()[:2] == ["Warning", "GPUUnhealthy"]
    assert lost.endswith("; no new pod gets it")
    (back,) = [line for line in events.splitlines() if "GPU 0 " in line and "healthy again" in line]
    assert back.split()[:2] == ["Normal", "GPUHealthy"]


def test_nothing_is_told_too_often(site: MonitoredSite, states: dict[str, State]) -> None:
    del states
    for namespace in ("default", NAMESPACE, "gpudetour-system"):
        events = _of_gpudetour(site, namespace)
        objects = Counter(
            (e["involvedObject"]["kind"], e["involvedObject"]["name"]) for e in events
        )
        assert all(count <= MOST_OF_AN_OBJECT for count in objects.values()), objects
        assert all(e["reason"].isalnum() and e["reason"][0].isupper() for e in events)
        same = Counter(
            (e["involvedObject"]["uid"], e["reason"], e["message"], e["reportingInstance"])
            for e in events
        )
        # A part that is started anew begins to count anew.
        assert all(count <= 4 for count in same.values()), same
