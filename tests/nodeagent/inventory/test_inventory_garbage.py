"""Answers of NVML that make no sense, and a library that cannot be found or loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import Health, NodeInventory
from localcluster.nvml.machine import Machine
from nodeagent.inventory.attempts import Patience
from nodeagent.inventory.library import FOLDERS, SONAME, find_library, resolve_in
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.source import InventoryError
from nodeagent.inventory.xids import HealthPolicy
from tests.nodeagent.inventory.conftest import Reader

MachineOf = Callable[[str], Machine]
SourceOf = Callable[[Machine], Reader]


def accepted(inventory: NodeInventory) -> NodeInventory:
    assert decode_inventory(encode_inventory(inventory)) == inventory
    return inventory


@pytest.mark.parametrize("name", ["\xff\xfe", "RTX\x07 4090\x1b[2J", "x" * 95])
def test_a_name_that_is_no_text_is_absent(
    machine_of: MachineOf, source_of: SourceOf, name: str
) -> None:
    machine = machine_of("2x-rtx-4090")
    machine.facts(machine.uuids[0], name=name)
    first, second = accepted(source_of(machine).read()).gpus
    assert first.product == (name if name.isprintable() and name.isascii() else None)
    assert first.health is Health.HEALTHY
    assert second.product == "NVIDIA GeForce RTX 4090"


def test_no_gpus_at_all_is_an_empty_inventory(machine_of: MachineOf, source_of: SourceOf) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.remove_gpu(machine.uuids[0])
    inventory = accepted(source_of(machine).read())
    assert (inventory.driver, inventory.gpus) == ("580.95.05", ())


@pytest.mark.parametrize("count", [129, 4_294_967_295])
def test_a_count_beyond_reason_is_an_error_and_the_next_read_works(
    machine_of: MachineOf, source_of: SourceOf, count: int
) -> None:
    machine = machine_of("rtx-5060-ti")
    source = source_of(machine)
    machine.report_count(count)
    with pytest.raises(InventoryError, match=f"NVML reports {count} GPUs"):
        source.nvml.survey()
    machine.report_count(None)
    assert len(source.read().gpus) == 1


def test_a_count_that_is_too_large_by_some_hides_no_gpu(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    machine.report_count(5)
    assert [gpu.uuid for gpu in accepted(source_of(machine).read()).gpus] == list(machine.uuids)


def test_two_gpus_with_one_uuid_are_given_to_nobody(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("mixed")
    machine.facts(machine.uuids[1], uuid=machine.uuids[0])
    first, third = accepted(source_of(machine).read()).gpus
    assert first.health is Health.FAULTY
    assert "the same UUID for the GPUs 0 and 1" in first.health_reason
    assert third.health is Health.HEALTHY


@pytest.mark.parametrize("uuid", ["\xff\xfe", "GPU-<script>", "none", "x" * 95])
def test_a_uuid_that_is_none_hides_one_gpu_only(
    machine_of: MachineOf, source_of: SourceOf, uuid: str
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine)
    machine.facts(machine.uuids[0], uuid=uuid)
    assert [gpu.uuid for gpu in accepted(source.read()).gpus] == [machine.uuids[1]]
    machine.restore(machine.uuids[0])
    assert len(source.read().gpus) == 2
    machine.facts(machine.uuids[0], uuid=uuid)
    known, _ = accepted(source.read()).gpus
    assert (known.uuid, known.health) == (machine.uuids[0], Health.FAULTY)


def test_a_new_order_of_indices_moves_no_uuid(machine_of: MachineOf, source_of: SourceOf) -> None:
    machine = machine_of("mixed")
    source = source_of(machine)
    before = {gpu.uuid: gpu.product for gpu in source.read().gpus}
    machine.reorder(machine.uuids[::-1])
    machine.add_gpu("t4")
    machine.reorder(machine.uuids[::-1])
    after = accepted(source.read())
    assert [gpu.uuid for gpu in after.gpus] == list(machine.uuids[::-1])
    assert {gpu.uuid: gpu.product for gpu in after.gpus}.items() >= before.items()


@pytest.mark.parametrize("bdf", ["none", "zz:01:00.0", "0000:1ff:00.0"])
def test_a_pci_address_that_is_none_makes_the_gpu_no_worse(
    machine_of: MachineOf, source_of: SourceOf, bdf: str
) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.facts(machine.uuids[0], bdf=bdf)
    (gpu,) = accepted(source_of(machine).read()).gpus
    assert (gpu.bdf, gpu.health) == (None, Health.HEALTHY)


def test_the_library_is_found_in_every_folder(machine_of: MachineOf, tmp_path: Path) -> None:
    library = machine_of("rtx-5060-ti").library.read_bytes()
    for number, folder in enumerate(FOLDERS):
        for root in (tmp_path / str(number), tmp_path / f"{number}/run/nvidia/driver"):
            (root / folder).mkdir(parents=True)
            placed = root / folder / SONAME
            placed.write_bytes(library)
            assert find_library(tmp_path / str(number)).path == placed
            placed.unlink()


def test_a_missing_library_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="usr/lib/x86_64-linux-gnu") as error:
        NvmlSource(tmp_path, policy=HealthPolicy(), patience=Patience()).survey()
    assert error.value.code == 12


def test_a_library_for_another_processor_is_passed_over(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    library = machine.library.read_bytes()
    other = machine.driver_root / "usr/lib64" / SONAME
    other.parent.mkdir(parents=True)
    other.write_bytes(library)
    machine.library.resolve().write_bytes(library[:4] + b"\x01" + library[5:])
    assert find_library(machine.driver_root).path == other
    other.unlink()
    with pytest.raises(InventoryError, match="is not a library for"):
        source_of(machine).nvml.survey()


def test_a_library_that_cannot_be_loaded_is_explained(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    real = machine.library.resolve()
    library = real.read_bytes()
    real.write_bytes(library[:64])
    source = source_of(machine)
    with pytest.raises(InventoryError, match="reinstall NVIDIA's driver"):
        source.nvml.survey()
    real.write_bytes(library)
    assert len(source.read().gpus) == 1


def test_of_several_libraries_the_one_of_the_loaded_driver_is_taken(
    machine_of: MachineOf,
) -> None:
    machine = machine_of("rtx-5060-ti")
    real = machine.library.resolve()
    stale = real.with_name("libnvidia-ml.so.550.54.14")
    stale.write_bytes(real.read_bytes())
    machine.library.unlink()
    machine.library.symlink_to(stale.name)
    current = machine.driver_root / "usr/lib64" / real.name
    current.parent.mkdir(parents=True)
    real.rename(current)
    (current.parent / SONAME).symlink_to(current.name)
    assert find_library(machine.driver_root).path == current


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/alternatives").mkdir(parents=True)
    (root / "nix/store/lib").mkdir(parents=True)
    (root / "usr/lib").mkdir(parents=True)
    target = root / "nix/store/lib/real.so"
    target.write_text("")
    (root / "etc/alternatives/link").symlink_to("/nix/../../nix/store/lib/real.so")
    (root / "usr/lib/a").symlink_to("../../etc/alternatives/link")
    (root / "usr/lib/loop").symlink_to("loop")
    (root / "usr/lib/gone").symlink_to("/nowhere")
    assert resolve_in(root, PurePath("usr/lib/a")) == target
    assert resolve_in(root, PurePath("usr/lib/loop")) is None
    assert resolve_in(root, PurePath("usr/lib/gone")) is None
