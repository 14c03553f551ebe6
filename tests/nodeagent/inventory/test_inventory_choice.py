"""Which GPUs an admin wants to be given out, and which failures count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Gpu, Health, NodeInventory
from localcluster.nvml.machine import Machine
from nodeagent.inventory.choice import Choice, normal_address
from nodeagent.inventory.events import XidEvent
from nodeagent.inventory.keeper import Rules
from nodeagent.inventory.standing import HoldDown
from nodeagent.inventory.xids import HealthPolicy, health_policy, weight_of, xid_reason
from tests.nodeagent.inventory.conftest import Clock, Reader

MachineOf = Callable[[str], Machine]
SourceOf = Callable[..., Reader]

NO_WAIT = HoldDown(base=0.0)
GPU = Gpu(uuid=DeviceId("GPU-a"), index=1, bdf="0000:41:00.0")


def given_out(inventory: NodeInventory) -> list[int]:
    assert decode_inventory(encode_inventory(inventory)) == inventory
    return [gpu.index for gpu in inventory.gpus]


@pytest.mark.parametrize(
    ("only", "exclude", "indices"),
    [
        ("", "", [0, 1, 2]),
        ("0, 2", "", [0, 2]),
        ("", "1", [0, 2]),
        ("0,1", "1", [0]),
        ("", "display", [0, 2]),
        ("DISPLAY", "", [1]),
        ("{uuid2}", "", [2]),
        ("", "{uuid2},{bdf0}", [1]),
        ("", "0000{bdf0}", [1, 2]),
        ("7", "", []),
        (",, ,", "", [0, 1, 2]),
    ],
)
def test_lists_of_gpus(
    machine_of: MachineOf, source_of: SourceOf, only: str, exclude: str, indices: list[int]
) -> None:
    machine = machine_of("mixed")
    machine.facts(machine.uuids[1], display_active=1)
    names = {f"uuid{n}": uuid for n, uuid in enumerate(machine.uuids)}
    names |= {f"bdf{n}": gpu.bdf.upper() for n, gpu in enumerate(machine.gpus)}
    choice = Choice(only=only.format(**names), exclude=exclude.format(**names))
    inventory = source_of(machine, Rules(choice=choice, hold_down=NO_WAIT)).read()
    assert given_out(inventory) == indices
    left = [machine.uuids[n] for n in range(3) if n not in indices]
    assert [withheld.uuid for withheld in inventory.withheld] == left
    for withheld in inventory.withheld:
        assert withheld.reason in ("excluded by --exclude-gpus", "not named by --gpus")


def test_a_screen_that_is_switched_on_takes_a_gpu_away(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    rules = Rules(choice=Choice(exclude="display"), hold_down=NO_WAIT)
    source = source_of(machine, rules)
    assert given_out(source.read()) == [0, 1]
    machine.facts(machine.uuids[0], display_mode=1)
    assert given_out(source.read()) == [1]
    # What cannot be known drives no screen.
    machine.facts(machine.uuids[0], display_mode="none", display_active="none")
    machine.restore(machine.uuids[0])
    assert given_out(source.read()) == [0, 1]


def test_an_index_stays_that_of_the_same_card(
    machine_of: MachineOf, source_of: SourceOf, clock: Clock
) -> None:
    machine = machine_of("mixed")
    source = source_of(machine, Rules(choice=Choice(exclude="1"), hold_down=NO_WAIT))
    published = source.read()
    kept = {machine.uuids[0], machine.uuids[2]}
    assert {gpu.uuid for gpu in published.gpus} == kept
    machine.fall_off_bus(machine.uuids[0])
    source.read()
    clock.now = 10.0
    # NVML counts the others anew now, and the second card is the first.
    assert {gpu.uuid for gpu in source.read().gpus} == kept
    source.restart()
    source.keeper.recall(published)
    assert {gpu.uuid for gpu in source.read().gpus} == kept


@pytest.mark.parametrize("text", ["gpu0", "-1", "1.5", "GPU-", "0000:01:00.9", "GPU-a b", "¼"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--gpus"):
        Choice(only=text)
    with pytest.raises(ValueError, match="--exclude-gpus"):
        Choice(exclude=f"0,{text}")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0000:01:00.0", "0000:01:00.0"),
        ("00000000:C1:00.0", "0000:c1:00.0"),
        ("00010000:C1:00.0", "10000:c1:00.0"),
        ("c1:00.0", "0000:c1:00.0"),
        ("c1:00", "0000:c1:00.0"),
        ("c1", None),
        ("", None),
    ],
)
def test_pci_addresses_are_written_as_sysfs_does(text: str, address: str | None) -> None:
    assert normal_address(text) == address


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_lists_are_taken_or_refused_with_the_option(only: str, exclude: str) -> None:
    try:
        choice = Choice(only=only, exclude=exclude)
    except ValueError as error:
        assert "gpus: " in str(error)  # noqa: PT017
    else:
        choice.refusal(GPU, first_index=1)


@pytest.mark.parametrize(
    ("disable", "enable", "heeded", "ignored"),
    [
        ("", "", (48, 79, 999), (13, 31, 43, 45, 68, 109)),
        ("79, 48", "", (62,), (79, 48, 13)),
        ("all", "", (), (79, 13)),
        ("XIDS", "", (), (79, 13)),
        ("all", "79", (79,), (48, 13)),
        ("79", "79,13", (79, 13, 48), (31,)),
        ("79", "all", (79, 13, 31), ()),
        (" ,", ",,", (79,), (13,)),
    ],
)
def test_xids_count_as_nvidias_plugin_counts_them(
    disable: str, enable: str, heeded: tuple[int, ...], ignored: tuple[int, ...]
) -> None:
    policy = health_policy(disable, enable, max_temperature=None)
    assert all(policy.heeds(xid) for xid in heeded)
    assert not any(policy.heeds(xid) for xid in ignored)
    assert policy.counters is ("all" not in disable)


@pytest.mark.parametrize("text", ["79;48", "-79", "7.9", "none", "٧٩", "9" * 40])
def test_what_is_no_xid_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="DP_DISABLE_HEALTHCHECKS"):
        health_policy(text, "", max_temperature=None)
    with pytest.raises(ValueError, match="DP_ENABLE_HEALTHCHECKS"):
        health_policy("", text, max_temperature=None)


@given(st.integers(0, 10**9 - 1))
def test_an_xid_weighs_the_same_whether_it_is_seen_or_recalled(xid: int) -> None:
    reason = xid_reason(xid)
    assert weight_of(reason) == weight_of(f"{reason}; not seen since then")
    assert weight_of(reason) in (1.0, 10.0)


def test_a_gpu_that_is_too_hot_is_kept_back_only_where_that_is_asked_for(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    limited = Rules(health=HealthPolicy(max_temperature=90), hold_down=NO_WAIT)
    source = source_of(machine, limited)
    machine.facts(machine.uuids[0], temperature=90)
    hot, cool = source.read().gpus
    assert (hot.health, hot.health_reason) == (
        Health.FAULTY,
        "90 °C or hotter: see to its cooling",
    )
    assert cool.health is Health.HEALTHY
    machine.facts(machine.uuids[0], temperature=93)
    assert source.read().gpus == (hot, cool), "a new temperature is no news"
    machine.facts(machine.uuids[0], temperature=89)
    assert source.read().gpus[0].health is Health.HEALTHY


def test_with_all_checks_off_only_a_gpu_that_does_not_answer_is_kept_back(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("8x-h100")
    off = health_policy("all", "", max_temperature=None)
    source = source_of(machine, Rules(health=off, hold_down=NO_WAIT))
    source.read()
    machine.ecc(machine.uuids[0], volatile=3)
    machine.lose(machine.uuids[1])
    source.keeper.report(XidEvent(xid=79, uuid=DeviceId(machine.uuids[2])))
    health = [gpu.health for gpu in source.read().gpus]
    assert health == [Health.HEALTHY] + [Health.LOST] + [Health.HEALTHY] * 6
