"""What the agent's metrics say of each GPU, and that it stays within bounds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from gpus.model import DeviceId, Health, MigInstance, NodeInventory, Path, Withheld
from nodeagent.inventory.events import XidEvent
from nodeagent.inventory.telemetry import Figures
from nodeagent.metrics import MOST_OF_A_GPU, Metrics, Shown
from nodeagent.podresources.client import Holder
from tests.nodeagent.plugin_parts import node, with_health

FIGURES = Figures(
    utilization=0.5,
    memory_used_bytes=1 << 30,
    memory_total_bytes=16 << 30,
    temperature_celsius=61,
    power_watts=120.5,
)


def _figures(uuids: Sequence[DeviceId]) -> dict[DeviceId, Figures]:
    return dict.fromkeys(uuids, FIGURES)


def _metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, node="n1", figures=_figures)


def _shown(
    *inventories: NodeInventory | None, given: Collection[tuple[DeviceId, Holder]] = ()
) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = _metrics(registry)
    for inventory in inventories:
        metrics.show(
            Shown(inventory=inventory, path=Path.PLUGIN, cause="OwnDevicePlugin", given=given)
        )
    return registry


def _samples(registry: CollectorRegistry, name: str) -> list[Sample]:
    return [s for family in registry.collect() for s in family.samples if s.name == name]


def _told(registry: CollectorRegistry, name: str, *labels: str) -> set[tuple[str, ...]]:
    found = _samples(registry, name)
    return {tuple(s.labels[label] for label in labels) for s in found if s.value == 1.0}


def _of_gpu(registry: CollectorRegistry, uuid: str) -> list[Sample]:
    samples = [s for family in registry.collect() for s in family.samples]
    return [s for s in samples if s.labels.get("uuid") == uuid and not s.name.endswith("_created")]


def test_each_gpu_is_one_thing_at_a_time() -> None:
    registry = _shown(with_health(node(2), 1, Health.LOST), with_health(node(2), 1, Health.FAULTY))
    assert _told(registry, "gpudetour_gpu_health", "uuid", "health", "reason") == {
        ("GPU-0", "healthy", ""),
        ("GPU-1", "faulty", "other"),
    }


@pytest.mark.parametrize(
    ("health", "reason", "kind"),
    [
        (Health.FAULTY, "Xid 79: the GPU has fallen off the bus", "xid_79"),
        (
            Health.FAULTY,
            "Xid 48: double bit ECC error; not seen since 2026-01-02T12:00:00Z, held for 600 s",
            "xid_48",
        ),
        (Health.FAULTY, "uncorrected ECC errors: reset the GPU", "ecc"),
        (Health.FAULTY, "90 °C or hotter: see to its cooling", "temperature"),
        (Health.FAULTY, "the driver asks to reset the GPU", "recovery_action"),
        (Health.UNMONITORED, "NVML has not answered since 2026-01-02T12:00:00Z", "no_answer"),
        (Health.UNMONITORED, "libnvidia-ml.so.1 is missing; install the driver", "no_nvml"),
        (Health.LOST, "nvmlDeviceGetHandleByIndex: GPU is lost (nvmlReturn_t 15)", "lost"),
    ],
)
def test_a_reason_is_one_word_without_times(health: Health, reason: str, kind: str) -> None:
    since = datetime(2026, 1, 2, 12, tzinfo=UTC)
    gpu = replace(node(1).gpus[0], health=health, health_reason=reason, health_since=since)
    registry = _shown(replace(node(1), gpus=(gpu,)))
    assert _told(registry, "gpudetour_gpu_health", "health", "reason") == {(str(health), kind)}
    times = _samples(registry, "gpudetour_gpu_unhealthy_since_timestamp_seconds")
    assert [s.value for s in times] == [since.timestamp()]


def test_a_gpu_that_is_gone_has_no_metric_any_more() -> None:
    for last in (node(1), None):
        assert _of_gpu(_shown(node(2), last), "GPU-1") == []


def test_gpus_that_do_not_answer_are_not_asked() -> None:
    asked: list[Sequence[DeviceId]] = []

    def figures(uuids: Sequence[DeviceId]) -> dict[DeviceId, Figures]:
        asked.append(uuids)
        return _figures(uuids)

    registry = CollectorRegistry()
    metrics = Metrics(registry, node="n1", figures=figures)
    inventory = with_health(with_health(node(4), 1, Health.LOST), 2, Health.UNMONITORED)
    metrics.show(Shown(inventory=inventory, path=Path.PLUGIN, cause="OwnDevicePlugin"))
    assert len(_samples(registry, "gpudetour_gpu_utilization_ratio")) == 2
    assert asked == [["GPU-0", "GPU-3"]]


def test_who_holds_an_instance_holds_it_of_its_gpu() -> None:
    mig = MigInstance(uuid=DeviceId("MIG-1"), profile="1g.5gb")
    gpu = replace(node(1).gpus[0], mig_enabled=True, mig=(mig,))
    holder = Holder(namespace="ml", pod="a", container="c")
    registry = _shown(replace(node(1), gpus=(gpu,)), given={(DeviceId("MIG-1"), holder)})
    name = "gpudetour_gpu_assignment_info"
    assert _told(registry, name, "node", "uuid", "device", "namespace", "pod", "container") == {
        ("n1", "GPU-0", "MIG-1", "ml", "a", "c")
    }


def test_a_gpu_has_few_series_whatever_happens_to_it() -> None:
    holders = {
        (DeviceId("GPU-0"), Holder(namespace="ml", pod=f"p{i}", container="c")) for i in range(500)
    }
    registry = CollectorRegistry()
    metrics = _metrics(registry)
    for xid in range(1000):
        metrics.note_xid(XidEvent(xid=xid, uuid=DeviceId("GPU-0")))
    since = datetime(2026, 1, 2, 12, tzinfo=UTC)
    inventory = with_health(node(1), 0, Health.FAULTY)
    gpu = replace(inventory.gpus[0], health_since=since)
    inventory = replace(inventory, gpus=(gpu,))
    metrics.show(
        Shown(inventory=inventory, path=Path.PLUGIN, cause="OwnDevicePlugin", given=holders)
    )
    series = _of_gpu(registry, "GPU-0")
    assert len(series) <= MOST_OF_A_GPU == 40
    assert [s.value for s in series if s.name == "gpudetour_gpu_holders"] == [500.0]
    xids = [s.value for s in series if s.name == "gpudetour_node_xids_total"]
    assert sum(xids) == 1000.0


def test_withheld_gpus_and_xids_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = _metrics(registry)
    inventory = replace(node(1), withheld=(Withheld(reason="excluded"),))
    metrics.show(Shown(inventory=inventory, path=Path.PLUGIN, cause="OwnDevicePlugin"))
    metrics.note_xid(XidEvent(xid=31, uuid=DeviceId("GPU-0")))
    metrics.note_xid(XidEvent(xid=79))
    assert _told(registry, "gpudetour_node_gpus_withheld") == {()}
    assert _told(registry, "gpudetour_node_xids_total", "uuid", "xid") == {
        ("GPU-0", "31"),
        ("", "79"),
    }
