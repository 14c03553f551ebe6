"""What the extender's metrics say of the fleet and of its own answers."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from extender.metrics import Metrics
from extender.placement.reasons import Reason
from extender.placement.shortlist import Decision
from gpus.model import Health, NodeName
from tests.builders import node, pod
from tests.extender.ledgers import Told

_OLDEST = "gpudetour_extender_oldest_waiting_pod_timestamp_seconds"


def _told() -> Told:
    told = Told(
        node("ann").with_gpus(4).health(Health.LOST, 3).annotation_path(),
        node("plug").with_gpus(2).plugin_path(),
        node("plain"),
    )
    told.pod(pod("holds").wants(gpus=1).assigned({"main": ["GPU-ann-0"]}).on("ann"))
    told.pod(pod("later").wants(gpus=1).created("2026-01-02T13:00:00Z"))
    told.pod(pod("first").wants(gpus=1).created("2026-01-02T12:00:00Z"))
    return told


def _metrics(told: Told, *, epoch: int | None = 1) -> tuple[CollectorRegistry, Metrics]:
    registry = CollectorRegistry()
    return registry, Metrics(registry, snapshot=told.cluster.snapshot, epoch=lambda: epoch)


def test_the_leader_counts_what_is_there_healthy_and_free_and_who_waits() -> None:
    registry, _ = _metrics(_told())

    def devices(state: str) -> float | None:
        labels = {"resource": "nvidia.com/gpu", "state": state}
        return registry.get_sample_value("gpudetour_extender_devices", labels)

    assert (devices("total"), devices("healthy"), devices("free")) == (6.0, 5.0, 4.0)
    assert registry.get_sample_value("gpudetour_extender_waiting_pods") == 2.0
    first = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
    assert registry.get_sample_value(_OLDEST) == first
    paths = {
        path: registry.get_sample_value("gpudetour_extender_path_nodes", {"path": path})
        for path in ("annotation", "plugin", "settling", "none")
    }
    assert paths == {"annotation": 1.0, "plugin": 1.0, "settling": 0.0, "none": 1.0}


def test_who_does_not_lead_does_not_pretend_to_know_the_pods() -> None:
    registry, _ = _metrics(_told(), epoch=None)
    assert registry.get_sample_value("gpudetour_extender_leading") == 0.0
    assert registry.get_sample_value("gpudetour_extender_nodes") == 3.0
    for name in ("devices", "waiting_pods", "epoch"):
        families = {family.name for family in registry.collect()}
        assert f"gpudetour_extender_{name}" not in families


def test_an_answer_without_a_node_counts_once_for_each_reason() -> None:
    registry, metrics = _metrics(_told())
    a, b, c = NodeName("a"), NodeName("b"), NodeName("c")
    in_use = Reason.IN_USE.text
    metrics.decided(Decision(nodes=[], busy={a: in_use, b: in_use}, unfit={c: Reason.NO_GPU.text}))
    metrics.decided(Decision(nodes=[a], busy={}, unfit={}))

    def counted(reason: str) -> float | None:
        name = "gpudetour_extender_rejections_total"
        return registry.get_sample_value(name, {"reason": reason})

    assert (counted("in_use"), counted("no_gpu"), counted("unhealthy")) == (1.0, 1.0, 0.0)
    results = [
        registry.get_sample_value("gpudetour_extender_filtered_total", {"result": result})
        for result in ("fits", "none")
    ]
    assert results == [1.0, 1.0]


def test_every_reason_that_the_scheduler_can_be_told_is_counted_by_a_name() -> None:
    registry, metrics = _metrics(_told())
    for reason in Reason:
        busy = {NodeName("a"): reason.text}
        metrics.decided(Decision(nodes=[], busy=busy, unfit={}))
    samples = [s for f in registry.collect() for s in f.samples]
    counted = [s.value for s in samples if s.name == "gpudetour_extender_rejections_total"]
    assert sum(counted) == len(Reason)
    assert len(counted) == len({reason.text for reason in Reason})
