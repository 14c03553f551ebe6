"""A driver that hangs must not freeze the agent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from gpus.model import Health
from localcluster.nvml.machine import Machine
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.source import InventoryError
from nodeagent.inventory.watchdog import WatchedSource

MachineOf = Callable[[str], Machine]
SourceOf = Callable[[Machine], NvmlSource]


def noon() -> datetime:
    return datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not within 10 s"
        threading.Event().wait(0.01)


def test_a_hanging_read_answers_what_was_known_and_recovers(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    machine.lose(machine.uuids[1])
    watched = WatchedSource(source_of(machine), deadline=0.5, now=noon)
    machine.restore(machine.uuids[1])
    before = watched.read()
    machine.hang("nvmlDeviceGetMemoryInfo")
    inventory = watched.read()
    reason = "NVML has not answered since 2026-01-02T12:00:00Z"
    assert [gpu.health for gpu in inventory.gpus] == [Health.UNMONITORED] * 2
    assert {gpu.health_reason for gpu in inventory.gpus} == {reason}
    assert [gpu.memory_bytes for gpu in inventory.gpus] == [24564 << 20] * 2
    began = time.monotonic()
    assert watched.read() == inventory
    assert time.monotonic() - began < 0.4, "a read that hangs is not waited for again"
    machine.release()
    until(lambda: watched.read() == before)


def test_a_driver_that_hangs_from_the_start_is_an_error(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.hang("*")
    watched = WatchedSource(source_of(machine), deadline=0.2, now=noon)
    for _ in range(2):
        with pytest.raises(InventoryError, match="has not answered since"):
            watched.read()
    machine.release()

    def answers() -> bool:
        try:
            return len(watched.read().gpus) == 1
        except InventoryError:
            return False

    until(answers)


def test_errors_of_the_source_reach_the_caller(machine_of: MachineOf, source_of: SourceOf) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.fail_init(9)
    watched = WatchedSource(source_of(machine), deadline=5, now=noon)
    with pytest.raises(InventoryError, match="modprobe"):
        watched.read()
