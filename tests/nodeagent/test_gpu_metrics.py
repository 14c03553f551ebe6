"""What the agent's metrics say of each GPU."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from gpus.model import DeviceId, Health, NodeInventory, Path, Withheld
from nodeagent.inventory.events import XidEvent
from nodeagent.metrics import Metrics
from tests.nodeagent.plugin_parts import node, with_health


def _lines(registry: CollectorRegistry, name: str) -> set[str]:
    text = generate_latest(registry).decode()
    return {line for line in text.splitlines() if line.startswith(name) and line.endswith(" 1.0")}


def _shown(*inventories: NodeInventory | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for inventory in inventories:
        metrics.show(inventory, Path.PLUGIN, held=0)
    return registry


def test_each_gpu_is_one_thing_at_a_time() -> None:
    registry = _shown(with_health(node(2), 1, Health.LOST), with_health(node(2), 1, Health.FAULTY))
    assert _lines(registry, "gpudetour_node_gpu_health") == {
        'gpudetour_node_gpu_health{health="healthy",product="",uuid="GPU-0"} 1.0',
        'gpudetour_node_gpu_health{health="faulty",product="",uuid="GPU-1"} 1.0',
    }


def test_a_gpu_that_is_gone_has_no_metric_any_more() -> None:
    for last in (node(1), None):
        text = generate_latest(_shown(node(2), last)).decode()
        assert 'uuid="GPU-1"' not in text
    named = replace(node(1).gpus[0], product="NVIDIA L4")
    text = generate_latest(_shown(node(1), replace(node(1), gpus=(named,)))).decode()
    assert 'product="",uuid="GPU-0"' not in text


def test_withheld_gpus_and_xids_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    inventory = replace(node(1), withheld=(Withheld(reason="excluded"),))
    metrics.show(inventory, Path.PLUGIN, held=0)
    metrics.note_xid(XidEvent(xid=31, uuid=DeviceId("GPU-0")))
    metrics.note_xid(XidEvent(xid=79))
    assert _lines(registry, "gpudetour_node_gpus_withheld") == {"gpudetour_node_gpus_withheld 1.0"}
    assert _lines(registry, "gpudetour_node_xids_total") == {
        'gpudetour_node_xids_total{uuid="GPU-0",xid="31"} 1.0',
        'gpudetour_node_xids_total{uuid="",xid="79"} 1.0',
    }
