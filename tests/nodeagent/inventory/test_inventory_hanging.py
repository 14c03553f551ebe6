"""A driver that hangs must not freeze the agent, and one bad card must not hide the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from gpus.model import Health, NodeInventory, Source
from localcluster.nvml.machine import Machine
from nodeagent.inventory.attempts import Patience
from nodeagent.inventory.events import XidWatcher
from nodeagent.inventory.source import InventoryError
from tests.nodeagent.inventory.conftest import AT_ONCE, Clock, Reader

MachineOf = Callable[[str], Machine]
SourceOf = Callable[..., Reader]

HEALTHY, LOST, UNMONITORED = Health.HEALTHY, Health.LOST, Health.UNMONITORED
#: A call that does not hang may take as long on a busy machine.
SHORT = Patience(call=2.0, starting=60.0)
SINCE = "NVML has not answered since 2026-01-02T12:00:00Z"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        threading.Event().wait(0.02)


def health(inventory: NodeInventory) -> list[Health]:
    return [gpu.health for gpu in inventory.gpus]


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUUID", "nvmlDeviceGetRemappedRows"]
)
def test_one_gpu_that_hangs_hides_no_other(
    machine_of: MachineOf, source_of: SourceOf, clock: Clock, function: str
) -> None:
    machine = machine_of("8x-h100")
    source = source_of(machine, AT_ONCE, patience=SHORT)
    before = source.read()
    machine.hang(function, uuid=machine.uuids[3])
    inventory = source.read()
    assert health(inventory) == [HEALTHY] * 3 + [UNMONITORED] + [HEALTHY] * 4
    third = inventory.gpus[3]
    assert third.health_reason == SINCE
    assert (third.product, third.links) == (before.gpus[3].product, before.gpus[3].links)
    # The others are read on: what happens to them is seen, and nobody waits for the one again.
    machine.lose(machine.uuids[5])
    clock.now = 3.0
    began = time.monotonic()
    inventory = source.read()
    assert time.monotonic() - began < 10
    assert health(inventory) == [HEALTHY] * 3 + [UNMONITORED, HEALTHY, LOST] + [HEALTHY] * 2
    assert inventory.gpus[3].health_reason == SINCE
    machine.restore(machine.uuids[5])
    machine.release()
    until(lambda: health(source.read()) == [HEALTHY] * 8)
    assert source.read() == before


def test_several_gpus_that_hang_are_passed_over_one_by_one(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine, AT_ONCE, patience=SHORT)
    source.read()
    machine.hang("nvmlDeviceGetMemoryInfo")
    assert health(source.read()) == [UNMONITORED] * 2
    machine.release()
    until(lambda: health(source.read()) == [HEALTHY] * 2)


def test_a_driver_that_hangs_as_a_whole_leaves_what_was_known_and_weaker_sources(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine, AT_ONCE, patience=SHORT)
    before = source.read()
    machine.hang("*")
    inventory = source.read()
    assert (inventory.source, health(inventory)) == (Source.PROC, [UNMONITORED] * 2)
    assert all(gpu.health_reason.startswith(SINCE) for gpu in inventory.gpus)
    assert inventory.trouble.startswith(SINCE)
    assert [gpu.memory_bytes for gpu in inventory.gpus] == [24564 << 20] * 2
    began = time.monotonic()
    assert source.read() == inventory
    assert time.monotonic() - began < SHORT.call, "a call that hangs is not waited for again"
    machine.release()
    until(lambda: source.read() == before)


def test_a_driver_that_hangs_from_the_start_is_an_error_until_it_answers(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.hang("*")
    source = source_of(machine, AT_ONCE, patience=Patience(call=0.2, starting=0.2))
    for _ in range(2):
        with pytest.raises(InventoryError, match="has not answered since"):
            source.nvml.survey()
    machine.release()
    until(lambda: health(source.read()) == [HEALTHY])


def test_a_watcher_that_hangs_keeps_no_gpu_from_being_read(
    machine_of: MachineOf, source_of: SourceOf, clock: Clock
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine, AT_ONCE, patience=SHORT)
    source.read()
    stop = threading.Event()
    watcher = XidWatcher(source.session, lambda _: None, on_lost=lambda: None)
    thread = threading.Thread(target=watcher.run, args=(stop,))
    machine.hang("nvmlEventSetCreate")
    thread.start()
    try:
        until(lambda: source.session._users > 0)
        machine.lose(machine.uuids[1])
        assert health(source.read()) == [HEALTHY, LOST]
        generation = source.session.generation
        clock.now = 60.0  # NVML would be restarted now to find it again
        assert health(source.read()) == [HEALTHY, LOST]
        assert source.read().source is Source.NVML
        assert source.session.generation == generation, "somebody is inside"
    finally:
        machine.release()
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
