"""Inventories between the first release and this one: each reads what the other writes."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import Health, NodeInventory, Source
from tests.gpus.inventories import inventories


class FirstReleaseGpu(msgspec.Struct, rename="camel"):
    """What the first release read of a GPU."""

    uuid: str
    index: int
    memory: int | None = None
    compute_capability: str | None = None
    health: Health = Health.HEALTHY
    health_reason: str = ""
    links: dict[int, Any] = {}
    mig_enabled: bool = False
    mig: list[Any] = []


class FirstRelease(msgspec.Struct):
    """What the first release read of a node."""

    v: int
    source: Source
    gpus: list[FirstReleaseGpu] = []


@given(inventories())
def test_the_first_release_reads_what_is_written_now(inventory: NodeInventory) -> None:
    read = msgspec.json.decode(encode_inventory(inventory), type=FirstRelease)

    told = [(gpu.uuid, gpu.index, gpu.health) for gpu in inventory.gpus]
    assert [(gpu.uuid, gpu.index, gpu.health) for gpu in read.gpus] == told
    assert read.v == 1


def test_what_the_first_release_wrote_is_read() -> None:
    text = (
        '{"v":1,"source":"nvml","driver":"580.95.05","cuda":"13.0","gpus":[{"uuid":"GPU-a",'
        '"index":0,"bdf":"0000:01:00.0","memory":1024,"health":"faulty","healthReason":"Xid 79"}]}'
    )

    inventory = decode_inventory(text)

    (gpu,) = inventory.gpus
    assert (gpu.health, gpu.health_reason, gpu.health_since) == (Health.FAULTY, "Xid 79", None)
    assert (inventory.withheld, inventory.boot, inventory.trouble) == ((), None, "")
