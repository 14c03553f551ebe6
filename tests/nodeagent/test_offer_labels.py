"""Labels of nodes whose GPUs are shared, or split in another way than `mixed`."""

from __future__ import annotations

from dataclasses import replace

from gpus.model import GPU_RESOURCE, DeviceId, Gpu, MigInstance, NodeInventory, ResourceName, Source
from nodeagent.deviceplugin.devices import MigStrategy, Offering, Slicing
from nodeagent.labels import node_labels
from nodeagent.offer_labels import as_offered

_GIB = 1 << 30
CARD = Gpu(uuid=DeviceId("GPU-0"), index=0, product="NVIDIA A100", memory_bytes=40 * _GIB)
INSTANCES = tuple(
    MigInstance(uuid=DeviceId(f"MIG-{n}"), profile="3g.20gb", memory_bytes=20 * _GIB)
    for n in range(2)
)
SPLIT = replace(CARD, mig_enabled=True, mig=INSTANCES)
MIG = "nvidia.com/mig-3g.20gb"


def _labels(offering: Offering, *gpus: Gpu) -> dict[str, str]:
    inventory = NodeInventory(source=Source.NVML, gpus=gpus)
    found = as_offered(node_labels(inventory), inventory, offering)
    return {name.removeprefix("nvidia.com/"): value for name, value in found.items()}


def _sliced(resource: str, *, shown_as: str) -> Offering:
    slicing = Slicing(replicas=4, shown_as=ResourceName(shown_as))
    return Offering(slicing={ResourceName(resource): slicing})


def test_nothing_changes_where_nothing_is_shared() -> None:
    for gpu in (CARD, SPLIT):
        inventory = NodeInventory(source=Source.NVML, gpus=(gpu,))
        assert as_offered(node_labels(inventory), inventory, Offering()) == node_labels(inventory)


def test_shared_gpus_say_how_often_and_in_their_name_unless_their_resource_does() -> None:
    found = _labels(_sliced(GPU_RESOURCE, shown_as=GPU_RESOURCE), CARD)
    assert found["gpu.replicas"] == "4"
    assert found["gpu.sharing-strategy"] == "time-slicing"
    assert found["gpu.product"] == "NVIDIA-A100-SHARED"
    assert found["gpu.count"] == "1"
    found = _labels(_sliced(GPU_RESOURCE, shown_as=f"{GPU_RESOURCE}.shared"), CARD)
    assert found["gpu.product"] == "NVIDIA-A100"


def test_a_long_name_keeps_its_end() -> None:
    long = replace(CARD, product="x" * 200)
    found = _labels(_sliced(GPU_RESOURCE, shown_as=GPU_RESOURCE), long)
    assert len(found["gpu.product"]) == 63
    assert found["gpu.product"].endswith("-SHARED")


def test_shared_instances_say_so_of_their_profile() -> None:
    found = _labels(_sliced(MIG, shown_as=MIG), SPLIT)
    assert found["mig-3g.20gb.replicas"] == "4"
    assert found["mig-3g.20gb.product"] == "NVIDIA-A100-MIG-3g.20gb-SHARED"
    assert found["gpu.replicas"] == "1"
    assert "mig-3g.20gb.replicas" not in _labels(_sliced(MIG, shown_as=MIG), CARD)


def test_single_describes_the_instances_as_the_gpus() -> None:
    found = _labels(Offering(mig=MigStrategy.SINGLE), SPLIT)
    assert found["mig.strategy"] == "single"
    assert (found["gpu.count"], found["gpu.memory"]) == ("2", str(20 * 1024))
    assert found["gpu.product"] == "NVIDIA-A100-MIG-3g.20gb"
    assert not any(name.startswith("mig-") for name in found)


def test_single_says_when_the_split_is_invalid() -> None:
    other = replace(CARD, uuid=DeviceId("GPU-1"), index=1)
    found = _labels(Offering(mig=MigStrategy.SINGLE), SPLIT, other)
    assert (found["gpu.count"], found["gpu.memory"]) == ("0", "0")
    assert found["gpu.product"] == "NVIDIA-A100-MIG-INVALID"


def test_none_tells_of_no_instances() -> None:
    found = _labels(Offering(mig=MigStrategy.NONE), SPLIT)
    assert "mig.strategy" not in found
    assert not any(name.startswith("mig-") for name in found)
    assert found["gpu.count"] == "1"
