"""The inventory of each simulated machine, through the real pynvml."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Gpu, Health, Link, NodeInventory, PcieLevel, Source
from localcluster.nvml.machine import Machine
from localcluster.nvml.profiles import profile_names
from nodeagent.inventory.mig import profile_name
from tests.nodeagent.inventory.conftest import Reader

MachineOf = Callable[[str], Machine]
SourceOf = Callable[[Machine], Reader]


def test_the_seed_machine(machine_of: MachineOf, source_of: SourceOf) -> None:
    machine = machine_of("rtx-5060-ti")
    assert source_of(machine).read() == NodeInventory(
        source=Source.NVML,
        driver="580.95.05",
        cuda="13.0",
        gpus=(
            Gpu(
                uuid=DeviceId(machine.uuids[0]),
                index=0,
                minor=0,
                bdf="0000:01:00.0",
                product="NVIDIA GeForce RTX 5060 Ti",
                memory_bytes=16311 << 20,
                compute_capability=(12, 0),
                architecture="blackwell",
                display=False,
                pci_class=0x030000,
                mig_capable=False,
            ),
        ),
        boot="boot-1",
    )


@pytest.mark.parametrize("profile", profile_names())
def test_every_machine_is_read_and_written_as_an_annotation(
    machine_of: MachineOf, source_of: SourceOf, profile: str
) -> None:
    machine = machine_of(profile)
    inventory = source_of(machine).read()
    assert tuple(gpu.uuid for gpu in inventory.gpus) == machine.uuids
    assert all(gpu.health is Health.HEALTHY for gpu in inventory.gpus)
    assert decode_inventory(encode_inventory(inventory)) == inventory


def test_different_models_are_told_apart(machine_of: MachineOf, source_of: SourceOf) -> None:
    inventory = source_of(machine_of("mixed")).read()
    assert [(gpu.product, gpu.architecture) for gpu in inventory.gpus] == [
        ("NVIDIA GeForce RTX 4090", "ada-lovelace"),
        ("NVIDIA RTX A4000", "ampere"),
        ("Tesla T4", "turing"),
    ]


def test_h100_are_linked_through_switches_over_two_numa_nodes(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    first, *others = source_of(machine_of("8x-h100")).read().gpus
    assert first.links == tuple(
        Link(
            peer=gpu.uuid,
            nvlinks=18,
            pcie=PcieLevel.NUMA_NODE if gpu.index < 4 else PcieLevel.SYSTEM,
        )
        for gpu in others
    )
    assert [gpu.numa_node for gpu in (first, *others)] == [0] * 4 + [1] * 4


def test_a100_are_linked_directly(machine_of: MachineOf, source_of: SourceOf) -> None:
    for gpu in source_of(machine_of("4x-a100")).read().gpus:
        assert [link.nvlinks for link in gpu.links] == [4, 4, 4]


def test_mig_devices_have_nvidias_profile_names_and_cut_their_gpus_links(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("a100-mig")
    source = source_of(machine)
    split, whole = source.read().gpus
    assert [instance.profile for instance in split.mig] == ["3g.20gb", "2g.10gb", "1g.5gb"]
    assert [instance.uuid for instance in split.mig] == list(machine.mig_uuids)
    assert [instance.resource for instance in split.mig][2] == "nvidia.com/mig-1g.5gb"
    assert split.mig[2].memory_bytes == 4864 << 20
    assert (split.mig_enabled, whole.mig_enabled, whole.mig) == (True, False, ())
    assert [link.nvlinks for link in whole.links] == [0]
    machine.split(machine.uuids[0], [])
    split, whole = source.read().gpus
    assert (split.mig_enabled, split.mig) == (False, ())
    assert [link.nvlinks for link in whole.links] == [4]
    machine.split(machine.uuids[1], ["1g.5gb+me"])
    assert [instance.profile for instance in source.read().gpus[1].mig] == ["1g.5gb+me"]


@pytest.mark.parametrize(
    ("slices", "compute", "memory_mib", "gpu_mib", "name"),
    [
        (1, 1, 4864, 40960, "1g.5gb"),
        (1, 1, 9856, 40960, "1g.10gb"),
        (2, 2, 9984, 40960, "2g.10gb"),
        (3, 3, 20096, 40960, "3g.20gb"),
        (4, 4, 20096, 40960, "4g.20gb"),
        (7, 7, 40192, 40960, "7g.40gb"),
        (3, 1, 20096, 40960, "1c.3g.20gb"),
        (1, 1, 9984, 81559, "1g.10gb"),
        (3, 3, 40448, 81559, "3g.40gb"),
        (7, 7, 81008, 81559, "7g.80gb"),
        (1, 1, 17920, 143771, "1g.18gb"),
        (1, 1, 5952, 24062, "1g.6gb"),
    ],
)
def test_mig_profile_names(
    slices: int, compute: int, memory_mib: int, gpu_mib: int, name: str
) -> None:
    computed = profile_name(
        gpu_slices=slices,
        compute_slices=compute,
        memory_mib=memory_mib,
        gpu_memory=gpu_mib << 20,
    )
    assert computed == name


def test_numa_comes_from_nvml_where_sysfs_is_not_mounted(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("8x-h100")
    for gpu in machine.gpus:
        (machine.driver_root / "sys/bus/pci/devices" / gpu.bdf / "numa_node").unlink()
    inventory = source_of(machine).read()
    assert [gpu.numa_node for gpu in inventory.gpus] == [0] * 4 + [1] * 4
