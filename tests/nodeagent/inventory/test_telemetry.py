"""What GPUs are doing, read through a real NVML library; one that hangs costs a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpus.model import DeviceId
from localcluster.nvml.machine import Machine
from localcluster.waiting import until
from nodeagent.inventory.telemetry import FRESH, Telemetry
from tests.nodeagent.inventory.conftest import Reader

#: GPU_IS_LOST and NOT_SUPPORTED of nvmlReturn_t.
LOST, NOT_SUPPORTED = 15, 3


@contextmanager
def _telemetry(reader: Reader) -> Iterator[tuple[Telemetry, Callable[[], None]]]:
    """Figures of a machine, and a step of the clock that makes the next look a new one."""
    now = [0.0]

    def later() -> None:
        now[0] += FRESH

    reader.read()  # brings NVML up
    yield Telemetry(reader.session, patience=0.2, clock=lambda: now[0]), later


def _uuids(machine: Machine) -> list[DeviceId]:
    return [DeviceId(uuid) for uuid in machine.uuids]


def test_figures_are_those_of_the_driver(
    machine_of: Callable[[str], Machine], source_of: Callable[..., Reader]
) -> None:
    machine = machine_of("2x-rtx-4090")
    first, second = _uuids(machine)
    machine.facts(
        first, utilization_gpu=87, memory_used=5 << 30, temperature=71, power_usage=412_500
    )
    with _telemetry(source_of(machine)) as (telemetry, later):
        busy = telemetry.read([first, second])[first]
        assert (busy.utilization, busy.memory_used_bytes) == (0.87, 5 << 30)
        assert (busy.temperature_celsius, busy.power_watts) == (71, 412.5)
        assert busy.memory_total_bytes == 25757220864
        machine.facts(first, utilization_gpu=3)
        assert telemetry.read([first, second])[first].utilization == 0.87
        later()
        assert telemetry.read([first, second])[first].utilization == 0.03


def test_what_a_card_does_not_tell_is_absent(
    machine_of: Callable[[str], Machine], source_of: Callable[..., Reader]
) -> None:
    machine = machine_of("2x-rtx-4090")
    first, second = _uuids(machine)
    machine.facts(first, power_usage="none", utilization_gpu="none")
    machine.fail("nvmlDeviceGetMemoryInfo_v2", NOT_SUPPORTED, uuid=first)
    with _telemetry(source_of(machine)) as (telemetry, later):
        told = telemetry.read([first, second])[first]
        assert (told.power_watts, told.utilization) == (None, None)
        assert told.temperature_celsius == 34
        # By the older call, which counts what the driver keeps for itself.
        assert told.memory_used_bytes == 536870912
        machine.fail("*", LOST, uuid=first)
        later()
        assert set(telemetry.read([first, second])) == {second}


def test_a_gpu_that_hangs_costs_its_own_figures_and_a_bounded_time(
    machine_of: Callable[[str], Machine], source_of: Callable[..., Reader]
) -> None:
    machine = machine_of("8x-h100")
    uuids = _uuids(machine)
    with _telemetry(source_of(machine)) as (telemetry, later):
        machine.hang("nvmlDeviceGetPowerUsage", uuid=uuids[3])
        assert set(telemetry.read(uuids)) == {*uuids} - {uuids[3]}
        later()
        began = time.monotonic()
        assert set(telemetry.read(uuids)) == {*uuids} - {uuids[3]}
        # Known to hang, so not waited for again; asked in another order, it is still that one.
        assert time.monotonic() - began < 5
        later()
        assert set(telemetry.read(uuids[::-1])) == {*uuids} - {uuids[3]}
        machine.release()

        def all_told() -> bool:
            later()
            return set(telemetry.read(uuids)) == set(uuids)

        until(all_told, timeout=30, what="the GPU answering again")


def test_without_nvml_there_are_no_figures(
    machine_of: Callable[[str], Machine], source_of: Callable[..., Reader]
) -> None:
    machine = machine_of("2x-rtx-4090")
    reader = source_of(machine)
    telemetry = Telemetry(reader.session)
    assert telemetry.read(_uuids(machine)) == {}
