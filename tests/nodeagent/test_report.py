"""What people are told, and how the inventory is read again and again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gpus.annotations import IN_USE, INVENTORY, PATH, PATH_REASON, SUMMARY, decode_inventory
from gpus.model import DeviceId, Gpu, Health, NodeInventory, Path, PodUid, Source
from nodeagent.inventory.source import InventoryError
from nodeagent.path import Cause, Decision
from nodeagent.reader import InventoryReader, Reading
from nodeagent.report import health_events, path_event, summary, wanted
from tests.nodeagent.plugin_parts import node, with_health

PLUGIN = Decision(path=Path.PLUGIN, cause=Cause.OWN_PLUGIN, reason="ours serves", register=True)
GPU_0 = DeviceId("GPU-0")
NO_GPU = Decision(path=Path.SETTLING, cause=Cause.NO_GPU, reason="no GPU to serve: no driver")


def test_a_node_with_gpus_says_everything() -> None:
    said = wanted(PLUGIN, node(2), in_use={GPU_0: PodUid("u1")}, held={GPU_0})
    assert said.annotations[PATH] == "plugin"
    assert said.annotations[PATH_REASON] == "ours serves"
    assert said.annotations[IN_USE] == '{"v":1,"holders":{"GPU-0":"u1"}}'
    assert decode_inventory(said.annotations[INVENTORY]) == node(2)
    assert said.labels == {"gpudetour.io/gpu": "true"}
    assert said.condition is not None
    assert (said.condition.status, said.condition.reason) == (True, "OwnDevicePlugin")


def test_a_node_that_never_had_a_gpu_says_one_line() -> None:
    said = wanted(NO_GPU, None, in_use={}, held=())
    assert said.annotations == {SUMMARY: "no GPU to serve: no driver"}
    assert (said.labels, said.features, said.condition) == ({}, {}, None)


def test_a_node_whose_gpus_only_another_plugin_can_read_is_still_a_gpu_node() -> None:
    other = Decision(path=Path.PLUGIN, cause=Cause.OTHER_PLUGIN, reason="theirs serves")
    said = wanted(other, None, in_use={}, held=())
    assert said.labels == {"gpudetour.io/gpu": "true"}
    assert INVENTORY not in said.annotations
    assert said.annotations[SUMMARY] == "GPUs not readable here, path plugin"


def test_the_summary_counts_models_and_faults() -> None:
    inventory = NodeInventory(
        source=Source.NVML,
        driver="580.95.05",
        gpus=(
            Gpu(uuid=DeviceId("GPU-0"), index=0, product="NVIDIA L4"),
            Gpu(uuid=DeviceId("GPU-1"), index=1, product="NVIDIA L4", health=Health.LOST),
            Gpu(uuid=DeviceId("GPU-2"), index=2),
        ),
    )
    assert summary(PLUGIN, inventory, held={GPU_0}) == (
        "2 x NVIDIA L4, 1 x unknown GPU, 1 free, 1 lost, driver 580.95.05, path plugin"
    )

    # A change of what is free must change the Node: it makes kube-scheduler try again.
    assert "2 free" in summary(PLUGIN, inventory, held=())
    changing = replace(PLUGIN, path=Path.SETTLING)
    assert "free" not in summary(changing, inventory, held=())


def test_long_reasons_are_cut() -> None:
    said = wanted(replace(PLUGIN, reason="x" * 2000), node(1), in_use={}, held=())
    assert said.annotations[PATH_REASON] == "x" * 511 + "…"


def test_one_event_for_each_change_of_cause() -> None:
    event = path_event(PLUGIN, before=None)
    assert event is not None
    assert (event.type, event.message) == ("Normal", "GPUs are on path plugin: ours serves")
    assert path_event(PLUGIN, before="OwnDevicePlugin") is None
    assert path_event(PLUGIN, before="OtherDevicePlugin") is not None
    settling = replace(PLUGIN, path=Path.SETTLING, cause=Cause.SETTLING)
    warning = path_event(settling, before="OwnDevicePlugin")
    assert warning is not None
    assert warning.type == "Warning"


def test_events_for_gpus_that_fail_and_come_back() -> None:
    lost = with_health(node(2), 1, Health.LOST)
    (event,) = health_events(node(2), lost)
    assert (event.type, event.reason) == ("Warning", "GPUUnhealthy")
    assert event.message.startswith("GPU 1 (GPU-1) is lost")
    assert list(health_events(lost, lost)) == []
    (back,) = health_events(lost, node(2))
    assert (back.type, back.message) == ("Normal", "GPU 1 (GPU-1) is healthy again")
    assert list(health_events(None, node(2))) == []
    assert len(list(health_events(None, lost))) == 1
    assert list(health_events(node(2), None)) == []


class _Source:
    """Answers what it is told to, and lets the test wait for each read."""

    def __init__(self) -> None:
        self.answer: NodeInventory | InventoryError = InventoryError("no driver", advice="wait")
        self.reads = threading.Semaphore(0)

    def read(self) -> NodeInventory:
        self.reads.release()
        if isinstance(self.answer, InventoryError):
            raise self.answer
        return self.answer


@contextmanager
def _reading(source: _Source) -> Iterator[tuple[InventoryReader, threading.Event]]:
    changed, stop = threading.Event(), threading.Event()
    reader = InventoryReader(source, interval=3600, on_change=changed.set)
    thread = threading.Thread(target=reader.run, args=(stop,))
    thread.start()
    try:
        assert reader.tried.wait(10)
        yield reader, changed
    finally:
        stop.set()
        reader.wake()
        thread.join(10)
        assert not thread.is_alive()


def test_the_reader_goes_on_until_the_driver_comes_and_keeps_what_it_saw() -> None:
    source = _Source()
    with _reading(source) as (reader, changed):
        assert reader.latest() == Reading(error="no driver; wait")
        changed.clear()
        source.answer = node(1)
        reader.wake()
        assert changed.wait(10)
        assert reader.latest() == Reading(inventory=node(1), error="")
        changed.clear()
        source.answer = InventoryError("driver not loaded", advice="load it", code=9)
        reader.wake()
        assert changed.wait(10)
        (gpu,) = reader.latest().inventory.gpus  # type: ignore[union-attr]
        assert (gpu.health, gpu.health_reason) == (Health.LOST, "driver not loaded")


def test_the_reader_tells_only_of_changes() -> None:
    source = _Source()
    source.answer = node(1)
    with _reading(source) as (reader, changed):
        assert source.reads.acquire(timeout=10)
        assert changed.wait(10)
        changed.clear()
        reader.wake()
        assert source.reads.acquire(timeout=10)
        reader.wake()
        assert source.reads.acquire(timeout=10)
        assert not changed.is_set()
