"""How large the annotations are: a node may carry 256 KiB of them in all."""

from __future__ import annotations

import json

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Gpu, Link, NodeInventory, PcieLevel, Source


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


def test_the_largest_annotation_that_a_node_can_carry_is_read_quickly_or_refused() -> None:
    gpus = [{"uuid": f"GPU-{n}", "index": n} for n in range(6000)]
    text = json.dumps({"v": 1, "source": "nvml", "gpus": gpus})
    assert len(text) > 200 * 1024

    assert len(decode_inventory(text).gpus) == 6000
