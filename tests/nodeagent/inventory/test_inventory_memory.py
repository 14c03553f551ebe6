"""What a new agent knows from the one before it, and what it forgets when the machine reboots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Health, NodeInventory
from localcluster.nvml.machine import Machine
from nodeagent.inventory.events import XidEvent
from nodeagent.inventory.keeper import Rules
from tests.nodeagent.inventory.conftest import NOON, Clock, Reader

MachineOf = Callable[[str], Machine]
SourceOf = Callable[..., Reader]

HEALTHY, FAULTY, LOST = Health.HEALTHY, Health.FAULTY, Health.LOST


def health(inventory: NodeInventory) -> list[Health]:
    return [gpu.health for gpu in inventory.gpus]


def published(inventory: NodeInventory) -> NodeInventory:
    """As it comes back from the Node."""
    return decode_inventory(encode_inventory(inventory))


@pytest.fixture
def struck(machine_of: MachineOf, source_of: SourceOf) -> Reader:
    """A machine whose second GPU reported an Xid at noon."""
    machine = machine_of("2x-rtx-4090")
    source: Reader = source_of(machine, Rules())
    source.read()
    source.keeper.report(XidEvent(xid=63, uuid=DeviceId(machine.uuids[1])))
    assert health(source.read()) == [HEALTHY, FAULTY]
    return source


@pytest.mark.parametrize("read_before", [False, True])
def test_a_restart_of_the_agent_heals_no_gpu(
    struck: Reader, clock: Clock, read_before: bool
) -> None:
    told = published(struck.read())
    clock.now = 30.0
    struck.restart()
    if read_before:
        assert health(struck.read()) == [HEALTHY, HEALTHY]
    struck.keeper.recall(told)
    inventory = struck.read()
    assert health(inventory) == [HEALTHY, FAULTY]
    second = inventory.gpus[1]
    assert second.health_since == NOON
    assert second.health_reason.startswith("Xid 63: row remapping or page retirement recorded;")
    clock.now = 89.0
    assert health(struck.read()) == [HEALTHY, FAULTY]
    clock.now = 90.0
    assert health(struck.read()) == [HEALTHY, HEALTHY]


def test_a_lost_gpu_is_not_forgotten_by_a_restart_of_the_agent(struck: Reader) -> None:
    lost = struck.machine.uuids[0]
    before = struck.read().gpus[0]
    struck.machine.remove_gpu(lost)
    told = published(struck.read())
    struck.restart()
    struck.keeper.recall(told)
    gpu = next(gpu for gpu in struck.read().gpus if gpu.uuid == lost)
    assert gpu.health is LOST
    assert (gpu.product, gpu.memory_bytes) == (before.product, before.memory_bytes)


def test_a_gpu_that_went_away_while_no_agent_ran_is_lost(struck: Reader) -> None:
    told = published(struck.read())
    struck.machine.remove_gpu(struck.machine.uuids[0])
    struck.restart()
    struck.keeper.recall(told)
    assert {gpu.uuid: gpu.health for gpu in struck.read().gpus}[
        DeviceId(struck.machine.uuids[0])
    ] is LOST


@pytest.mark.parametrize("boot", ["boot-0", None])
def test_after_a_reboot_nothing_of_before_counts(struck: Reader, boot: str | None) -> None:
    told = replace(published(struck.read()), boot=boot)
    struck.machine.remove_gpu(struck.machine.uuids[0])
    struck.restart()
    struck.keeper.recall(told)
    assert [(gpu.uuid, gpu.health) for gpu in struck.read().gpus] == [
        (struck.machine.uuids[1], HEALTHY)
    ]


def test_nothing_is_told_anew_while_nothing_happens(struck: Reader, clock: Clock) -> None:
    struck.machine.lose(struck.machine.uuids[0])
    struck.read()
    first = struck.read()
    texts = set()
    for second in range(1, 59):
        clock.now = float(second)
        texts.add(encode_inventory(struck.read()))
    assert texts == {encode_inventory(first)}
    assert first.gpus[1].health_since == NOON


def test_health_since_is_when_it_became_what_it_is(struck: Reader, clock: Clock) -> None:
    clock.now = 20.7
    struck.machine.lose(struck.machine.uuids[1])
    assert struck.read().gpus[1].health_since == NOON + timedelta(seconds=20)
    clock.now = 25.0
    assert struck.read().gpus[1].health_since == NOON + timedelta(seconds=20)


def test_a_replaced_driver_finds_the_same_gpus_and_no_wait(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("8x-h100")
    source = source_of(machine, Rules())
    before = source.read()
    for function in ("nvmlDeviceGetCount_v2", "nvmlSystemGetDriverVersion"):
        machine.fail(function, 18)
    assert set(health(source.read())) == {Health.UNMONITORED}
    machine.release()
    generation = source.session.generation
    assert source.read() == before
    # A library whose driver went away under it answers again only after nvmlInit.
    assert source.session.generation == generation + 1
