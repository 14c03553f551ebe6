"""What people are told, and how the inventory is read again and again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gpus.annotations import IN_USE, INVENTORY, PATH, PATH_REASON, SUMMARY, decode_inventory
from gpus.model import DeviceId, Gpu, Health, NodeInventory, Path, PodUid, Source, Withheld
from nodeagent.inventory.source import InventoryError
from nodeagent.path import Cause, Decision
from nodeagent.publisher import Condition
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


def test_events_say_the_same_of_the_same_failure_whenever_it_happens() -> None:
    def failed(reason: str) -> NodeInventory:
        (gpu,) = node(1).gpus
        gpu = replace(gpu, health=Health.FAULTY, health_reason=reason)
        return replace(node(1), gpus=(gpu,))

    early = failed("Xid 79: off the bus; not seen since 2026-01-02T12:00:00Z, held for 60 s")
    late = failed("Xid 79: off the bus; not seen since 2026-01-03T12:00:00Z, held for 120 s")
    (first,), (second,) = (health_events(node(1), each) for each in (early, late))
    assert first == second
    assert first.message == "GPU 0 (GPU-0) is faulty: Xid 79: off the bus; no new pod gets it"


def test_an_event_for_each_gpu_that_is_gone() -> None:
    (gone,) = health_events(node(2), node(1))
    assert (gone.reason, gone.message) == (
        "GPUGone",
        "GPU 1 (GPU-1) is gone: it is no longer in this node",
    )
    kept = replace(node(1), withheld=(Withheld(uuid=DeviceId("GPU-1"), reason="excluded"),))
    (withheld,) = health_events(node(2), kept)
    assert withheld.message == "GPU 1 (GPU-1) is gone: excluded"


def test_the_condition_names_unhealthy_gpus_and_is_false_when_all_are() -> None:
    def condition(inventory: NodeInventory, decision: Decision = PLUGIN) -> Condition:
        said = wanted(decision, inventory, in_use={}, held=())
        assert said.condition is not None
        return said.condition

    one = condition(with_health(node(2), 1, Health.LOST))
    assert (one.status, one.reason) == (True, "OwnDevicePlugin")
    assert one.message.startswith("ours serves; GPU 1 (GPU-1) is lost")
    both = with_health(with_health(node(2), 1, Health.LOST), 0, Health.UNMONITORED)
    assert condition(both).status is False
    # What another plugin gives out does not depend on what we can read.
    theirs = replace(PLUGIN, cause=Cause.OTHER_PLUGIN, register=False)
    assert condition(both, theirs).status is True


def test_gpus_that_cannot_be_given_out_are_told_of_a_node_that_has_no_other() -> None:
    inventory = NodeInventory(
        source=Source.SYSFS,
        withheld=(Withheld(bdf="0000:01:00.0", reason="it is bound to nouveau"),),
    )
    said = wanted(NO_GPU, inventory, in_use={}, held=())
    assert said.annotations == {
        SUMMARY: "no GPU to serve: no driver; GPU 0000:01:00.0: it is bound to nouveau"
    }
    mixed = replace(node(1), withheld=inventory.withheld)
    assert "1 free, 1 withheld" in summary(PLUGIN, mixed, held=())


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

    def recall(self, published: NodeInventory) -> None:
        self.recalled = published


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


def test_the_reader_goes_on_until_the_driver_comes_and_says_what_is_wrong() -> None:
    source = _Source()
    with _reading(source) as (reader, changed):
        assert reader.latest() == Reading(error="no driver; wait")
        assert changed.wait(10)
        changed.clear()
        source.answer = node(1)
        reader.wake()
        assert changed.wait(10)
        assert reader.latest() == Reading(inventory=node(1), error="")
        changed.clear()
        weaker = replace(node(1), source=Source.PROC, trouble="driver not loaded; load it")
        source.answer = weaker
        reader.wake()
        assert changed.wait(10)
        assert reader.latest() == Reading(inventory=weaker, error="driver not loaded; load it")


def test_after_a_recall_the_reader_knows_nothing_until_it_has_read_again() -> None:
    source = _Source()
    source.answer = node(1)
    with _reading(source) as (reader, _):
        assert source.reads.acquire(timeout=10)
        reader.recall(node(2))
        assert source.reads.acquire(timeout=10)
        assert reader.tried.wait(10)
        assert source.recalled == node(2)


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
