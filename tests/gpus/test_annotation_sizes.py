"""How large the annotations are: a node may carry 256 KiB of them in all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Gpu, Health, Link, NodeInventory, PcieLevel, Source, Withheld


def h100_node() -> NodeInventory:
    uuids = [DeviceId(f"GPU-{n:08x}-1234-5678-9abc-def012345678") for n in range(8)]
    return NodeInventory(
        source=Source.NVML,
        driver="580.105.08",
        cuda="13.0",
        gpus=tuple(
            Gpu(
                uuid=uuid,
                index=index,
                minor=index,
                bdf=f"00000000:{0x19 + index:02X}:00.0",
                product="NVIDIA H100 80GB HBM3",
                memory_bytes=85_520_809_984,
                compute_capability=(9, 0),
                architecture="hopper",
                numa_node=index // 4,
                links=tuple(
                    Link(
                        peer=peer,
                        nvlinks=18,
                        pcie=PcieLevel.SYSTEM if n // 4 != index // 4 else PcieLevel.NUMA_NODE,
                    )
                    for n, peer in enumerate(uuids)
                    if n != index
                ),
            )
            for index, uuid in enumerate(uuids)
        ),
    )


def test_eight_linked_h100_fit_into_8_kib() -> None:
    inventory = h100_node()
    text = encode_inventory(inventory)

    assert decode_inventory(text) == inventory
    assert len(text.encode()) <= 8 * 1024


def test_eight_lost_h100_of_which_some_are_withheld_fit_too() -> None:
    node = h100_node()
    lost = tuple(
        replace(
            gpu,
            health=Health.LOST,
            health_reason="x" * 240,
            health_since=datetime(2026, 1, 2, tzinfo=UTC),
            display=False,
            pci_class=0x030200,
            mig_capable=True,
        )
        for gpu in node.gpus
    )
    told = replace(
        node,
        gpus=lost,
        withheld=(Withheld(bdf="0000:01:00.0", reason="x" * 100),),
        trouble="x" * 240,
        boot="5a1c8b2e-9f0d-4f9d-8d51-0a1b2c3d4e5f",
        machine="ProLiant XL675d Gen10 Plus",
    )
    text = encode_inventory(told)

    assert decode_inventory(text) == told
    assert len(text.encode()) <= 8 * 1024


def test_the_largest_annotation_that_a_node_can_carry_is_read_quickly_or_refused() -> None:
    gpus = [{"uuid": f"GPU-{n}", "index": n} for n in range(6000)]
    text = json.dumps({"v": 1, "source": "nvml", "gpus": gpus})
    assert len(text) > 200 * 1024

    assert len(decode_inventory(text).gpus) == 6000
