"""GPUs that fail, come back, arrive and leave while the source reads on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Health, NodeInventory
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from nodeagent.inventory.events import XidEvent, XidWatcher
from nodeagent.inventory.keeper import Rules
from nodeagent.inventory.source import InventoryError
from tests.nodeagent.inventory.conftest import Clock, Reader

MachineOf = Callable[[str], Machine]
SourceOf = Callable[[Machine], Reader]


HEALTHY, FAULTY, LOST = Health.HEALTHY, Health.FAULTY, Health.LOST


def health(inventory: NodeInventory) -> list[Health]:
    assert decode_inventory(encode_inventory(inventory)) == inventory
    return [gpu.health for gpu in inventory.gpus]


def test_a_lost_gpu_keeps_its_facts_and_hides_no_other(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("8x-h100")
    source = source_of(machine)
    before = source.read()
    machine.lose(machine.uuids[3])
    after = source.read()
    assert health(after) == [HEALTHY] * 3 + [LOST] + [HEALTHY] * 4
    assert after.gpus[3].product == before.gpus[3].product
    assert after.gpus[3].memory_bytes == before.gpus[3].memory_bytes
    assert "GPU is lost" in after.gpus[3].health_reason
    machine.restore(machine.uuids[3])
    assert source.read().gpus == before.gpus
    generation = source.session.generation
    assert source.read().gpus == before.gpus
    assert source.session.generation == generation + 1, "events are to be heard again"


def test_a_gpu_off_the_bus_stays_lost_and_is_found_again_when_nvml_restarts(
    machine_of: MachineOf, source_of: SourceOf, clock: Clock
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine)
    source.read()
    machine.fall_off_bus(machine.uuids[0])
    assert health(source.read()) == [LOST, HEALTHY]
    clock.now = 10.0
    inventory = source.read()
    # NVML gives the index of the missing GPU to the other one.
    assert [(gpu.uuid, gpu.index, gpu.health) for gpu in inventory.gpus] == [
        (machine.uuids[1], 0, HEALTHY),
        (machine.uuids[0], 1, LOST),
    ]
    assert "GPU is lost" in inventory.gpus[1].health_reason
    machine.restore(machine.uuids[0])
    clock.now = 19.0
    assert health(source.read()) == [HEALTHY, LOST]
    clock.now = 20.0
    assert health(source.read()) == [HEALTHY, HEALTHY]
    assert [gpu.uuid for gpu in source.read().gpus] == list(machine.uuids)


def test_a_gpu_that_the_kernel_binds_is_seen_at_the_next_read(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    source = source_of(machine)
    assert len(source.read().gpus) == 1
    added = machine.add_gpu("rtx-4090")
    assert [gpu.uuid for gpu in source.read().gpus] == [machine.uuids[0], added]
    machine.remove_gpu(added)
    assert health(source.read()) == [HEALTHY, LOST]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"ecc_uncorrected_volatile": 2}, "uncorrected ECC errors"),
        ({"remapped_failure": 1}, "row remapping failed"),
        ({"recovery_action": 2}, "reboot the node"),
        ({"recovery_action": 9}, "recovery action 9"),
    ],
)
def test_signs_of_broken_hardware_make_a_gpu_faulty_until_they_are_gone(
    machine_of: MachineOf, source_of: SourceOf, facts: dict[str, int], reason: str
) -> None:
    machine = machine_of("8x-h100")
    source = source_of(machine)
    source.read()
    machine.facts(machine.uuids[1], **facts)
    inventory = source.read()
    assert health(inventory) == [HEALTHY, FAULTY] + [HEALTHY] * 6
    assert reason in inventory.gpus[1].health_reason
    machine.restore(machine.uuids[1])
    assert health(source.read()) == [HEALTHY] * 8


def test_a_gpu_that_needs_a_reset_is_faulty_with_the_facts_that_were_known(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine)
    before = source.read()
    machine.fail("nvmlDeviceGetMemoryInfo", 16, uuid=machine.uuids[1])
    inventory = source.read()
    assert health(inventory) == [HEALTHY, FAULTY]
    assert inventory.gpus[1].memory_bytes == before.gpus[1].memory_bytes
    assert "nvmlDeviceGetMemoryInfo" in inventory.gpus[1].health_reason


@pytest.mark.parametrize("code", [3, 4, 13, 999])
def test_a_fact_that_cannot_be_read_is_absent_and_no_fault(
    machine_of: MachineOf, source_of: SourceOf, code: int
) -> None:
    machine = machine_of("8x-h100")
    for function in (
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetTopologyCommonAncestor",
        "nvmlDeviceGetMigMode",
    ):
        machine.fail(function, code)
    first = source_of(machine).read().gpus[0]
    assert first.health is HEALTHY
    absent = (first.minor, first.compute_capability, first.architecture, first.links)
    assert absent == (None, None, None, ())


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (9, "modprobe nvidia"),
        (18, "reboot the node"),
        (999, "restart the agent"),
        (4, "privileged"),
        (77, "dmesg"),
    ],
)
def test_a_driver_that_does_not_start_is_explained_and_found_when_it_does(
    machine_of: MachineOf, source_of: SourceOf, code: int, advice: str
) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.fail_init(code)
    source = source_of(machine)
    with pytest.raises(InventoryError, match=advice) as error:
        source.nvml.survey()
    assert error.value.code == code
    machine.fail_init(None)
    assert health(source.read()) == [HEALTHY]


def test_a_replaced_driver_is_loaded_anew_whether_its_name_changes_or_not(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    source = source_of(machine)
    assert source.read().driver == "580.95.05"
    replaced = install(machine.driver_root, "2x-rtx-4090", node="node1")
    inventory = source.read()
    assert inventory.driver == "570.124.06"
    assert set(replaced.uuids) <= {gpu.uuid for gpu in inventory.gpus}
    library = source.session.library
    install(machine.driver_root, "2x-rtx-4090", node="node1")
    generation = source.session.generation
    assert source.read().driver == "570.124.06"
    assert source.session.generation == generation + 1
    assert source.session.library != library


def test_a_driver_that_is_uninstalled_and_comes_back(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    source = source_of(machine)
    source.read()
    hidden = machine.library.with_name("hidden")
    machine.library.rename(hidden)
    with pytest.raises(InventoryError, match="--driver-root"):
        source.nvml.survey()
    hidden.rename(machine.library)
    assert health(source.read()) == [HEALTHY]


def wait_for(condition: threading.Event) -> None:
    assert condition.wait(10), "no event within 10 s"


class Listener:
    """Collects events of a watcher that runs in a thread of its own."""

    def __init__(self, source: Reader) -> None:
        self.events: list[XidEvent] = []
        self._changed = threading.Condition()
        self.stop = threading.Event()
        self.lost = threading.Event()
        self.watcher = XidWatcher(source.session, self._hear, on_lost=self.lost.set)
        self.thread = threading.Thread(target=self.watcher.run, args=(self.stop,))

    def _hear(self, event: XidEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def has_heard(self, event: XidEvent, *, within: float) -> bool:
        """Tell whether an event was heard, or is so many seconds from now."""
        with self._changed:
            return self._changed.wait_for(lambda: event in self.events, within)

    def __enter__(self) -> Listener:
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def until_heard(listener: Listener, machine: Machine, uuid: str, xid: int) -> None:
    """Repeat an Xid until it is heard: the watcher may just be registering.

    So it may be heard more than once, the last time much later.
    """
    for _ in range(100):
        machine.xid(uuid, xid)
        if listener.has_heard(XidEvent(xid=xid, uuid=DeviceId(uuid)), within=0.2):
            return
    raise AssertionError("the Xid was not heard")


def test_an_xid_makes_a_gpu_faulty_for_a_while_or_until_it_was_lost_and_came_back(
    machine_of: MachineOf, source_of: Callable[..., Reader], clock: Clock
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine, Rules())
    source.read()
    with Listener(source) as listener:
        until_heard(listener, machine, machine.uuids[1], 62)
    event = listener.events[0]
    assert event == XidEvent(xid=62, uuid=DeviceId(machine.uuids[1]))
    source.keeper.report(event)
    inventory = source.read()
    assert health(inventory) == [HEALTHY, FAULTY]
    reason = "Xid 62: internal micro-controller halt; not seen since 2026-01-02T12:00:00Z, held"
    assert inventory.gpus[1].health_reason.startswith(reason)
    machine.lose(machine.uuids[1])
    assert health(source.read()) == [HEALTHY, LOST]
    machine.restore(machine.uuids[1])
    assert health(source.read()) == [HEALTHY, LOST]
    # It was reset, so it is trusted sooner than after an Xid that asks for a reset.
    clock.now = 60.0
    assert health(source.read()) == [HEALTHY, HEALTHY]


def test_every_xid_is_told_and_those_of_programs_do_not_count(
    machine_of: MachineOf, source_of: Callable[..., Reader]
) -> None:
    machine = machine_of("rtx-5060-ti")
    source = source_of(machine, Rules())
    source.read()
    with Listener(source) as listener:
        until_heard(listener, machine, machine.uuids[0], 13)
        until_heard(listener, machine, machine.uuids[0], 31)
    assert {event.xid for event in listener.events} == {13, 31}
    for event in listener.events:
        source.keeper.report(event)
    assert health(source.read()) == [HEALTHY]
    source.keeper.report(XidEvent(xid=48, uuid=DeviceId(machine.uuids[0])))
    assert health(source.read()) == [FAULTY]


def test_the_watcher_lets_nvml_restart_and_goes_on(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    source = source_of(machine)
    source.read()
    with Listener(source) as listener:
        until_heard(listener, machine, machine.uuids[0], 79)
        added = machine.add_gpu("rtx-4090")
        assert [gpu.uuid for gpu in source.read().gpus] == [machine.uuids[0], added]
        until_heard(listener, machine, added, 74)


def test_the_watcher_outlives_a_lost_gpu_and_hears_the_others(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine)
    source.read()
    with Listener(source) as listener:
        until_heard(listener, machine, machine.uuids[0], 62)
        machine.lose(machine.uuids[0])
        assert listener.lost.wait(10), "so that it is looked at before its turn"
        until_heard(listener, machine, machine.uuids[1], 74)


def test_an_xid_of_an_unknown_gpu_counts_against_all(
    machine_of: MachineOf, source_of: Callable[..., Reader]
) -> None:
    source = source_of(machine_of("2x-rtx-4090"), Rules())
    source.read()
    source.keeper.report(XidEvent(xid=79))
    assert health(source.read()) == [FAULTY, FAULTY]
