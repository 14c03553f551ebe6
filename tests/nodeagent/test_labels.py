"""Labels as GPU feature discovery writes them, where it does and better where it does not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.model import DeviceId, Gpu, MigInstance, NodeInventory, Source
from nodeagent.labels import is_feature_label, node_labels, own_labels, sanitise

_GIB = 1 << 30


def _gpu(
    index: int,
    product: str | None,
    *,
    memory: int | None = None,
    capability: tuple[int, int] | None = None,
    mig: tuple[MigInstance, ...] = (),
) -> Gpu:
    return Gpu(
        uuid=DeviceId(f"GPU-{index}"),
        index=index,
        product=product,
        memory_bytes=memory,
        compute_capability=capability,
        mig_enabled=bool(mig),
        mig=mig,
    )


def _node(*gpus: Gpu, driver: str | None = None, cuda: str | None = None) -> NodeInventory:
    return NodeInventory(source=Source.NVML, driver=driver, cuda=cuda, gpus=gpus)


def test_the_machine_with_the_new_consumer_card() -> None:
    node = _node(
        _gpu(0, "NVIDIA GeForce RTX 5060 Ti", memory=16 * _GIB - 1, capability=(12, 0)),
        driver="580.95.05",
        cuda="13.0",
    )
    assert node_labels(node) == {
        "nvidia.com/cuda.driver-version.full": "580.95.05",
        "nvidia.com/cuda.driver-version.major": "580",
        "nvidia.com/cuda.driver-version.minor": "95",
        "nvidia.com/cuda.driver-version.revision": "05",
        "nvidia.com/cuda.driver.major": "580",
        "nvidia.com/cuda.driver.minor": "95",
        "nvidia.com/cuda.driver.rev": "05",
        "nvidia.com/cuda.runtime-version.full": "13.0",
        "nvidia.com/cuda.runtime-version.major": "13",
        "nvidia.com/cuda.runtime-version.minor": "0",
        "nvidia.com/cuda.runtime.major": "13",
        "nvidia.com/cuda.runtime.minor": "0",
        "nvidia.com/gpu.compute.major": "12",
        "nvidia.com/gpu.compute.minor": "0",
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.family": "blackwell",
        "nvidia.com/gpu.machine": "unknown",
        "nvidia.com/gpu.memory": "16383",
        "nvidia.com/gpu.mode": "unknown",
        "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-5060-Ti",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
    }


def test_what_is_not_known_is_no_label() -> None:
    assert node_labels(_node(_gpu(0, None), driver="next", cuda="")) == {
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.machine": "unknown",
        "nvidia.com/gpu.mode": "unknown",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
    }


def test_no_gpu_no_label() -> None:
    assert node_labels(_node(driver="580.95.05")) == {}
    assert own_labels(None) == {"gpudetour.io/gpu": "true"}


def test_every_model_is_counted_under_a_name_that_a_label_can_have() -> None:
    node = _node(
        _gpu(0, "NVIDIA L4"),
        _gpu(1, "NVIDIA A2"),
        _gpu(2, "NVIDIA L4"),
        _gpu(3, None),
        _gpu(4, "x" * 70),
    )
    assert own_labels(node) == {
        "gpudetour.io/gpu": "true",
        "gpudetour.io/product.NVIDIA-L4": "2",
        "gpudetour.io/product.NVIDIA-A2": "1",
        "gpudetour.io/product." + "x" * 55: "1",
    }


def test_machine_mode_and_what_the_cards_are_capable_of() -> None:
    def told(*gpus: Gpu, machine: str | None = None) -> list[str | None]:
        labels = node_labels(replace(_node(*gpus), machine=machine))
        names = ("gpu.machine", "gpu.mode", "mig.capable")
        return [labels.get(f"nvidia.com/{name}") for name in names]

    vga = replace(_gpu(0, "a"), pci_class=0x030000, mig_capable=False)
    compute = replace(_gpu(1, "b"), pci_class=0x030200, mig_capable=True)
    qemu = "Standard PC (Q35 + ICH9, 2009)"
    assert told(vga, machine=qemu) == ["Standard-PC-Q35-ICH9-2009", "graphics", "false"]
    assert told(compute) == ["unknown", "compute", "true"]
    assert told(vga, compute) == ["unknown", "unknown", "true"]
    assert told(_gpu(2, "c")) == ["unknown", "unknown", None]


def test_mixed_models_get_the_most_frequent_one_whatever_their_order() -> None:
    a, b, c = _gpu(0, "NVIDIA A2"), _gpu(1, "NVIDIA L4"), _gpu(2, "NVIDIA L4")
    for node in (_node(a, b, c), _node(c, a, b)):
        labels = node_labels(node)
        assert labels["nvidia.com/gpu.product"] == "NVIDIA-L4"
        assert labels["nvidia.com/gpu.count"] == "3"
    assert node_labels(_node(b, a))["nvidia.com/gpu.product"] == "NVIDIA-A2"


@pytest.mark.parametrize(
    ("capability", "family"),
    [
        ((3, 5), "kepler"),
        ((5, 2), "maxwell"),
        ((6, 1), "pascal"),
        ((7, 0), "volta"),
        ((7, 5), "turing"),
        ((8, 0), "ampere"),
        ((8, 6), "ampere"),
        ((8, 9), "ada-lovelace"),
        ((9, 0), "hopper"),
        ((10, 0), "blackwell"),
        ((12, 0), "blackwell"),
        ((13, 0), "rubin"),
        ((4, 0), "undefined"),
    ],
)
def test_family_by_compute_capability(capability: tuple[int, int], family: str) -> None:
    node = _node(_gpu(0, "x", capability=capability))
    assert node_labels(node)["nvidia.com/gpu.family"] == family


def test_a_driver_version_of_two_numbers_has_no_revision() -> None:
    labels = node_labels(_node(_gpu(0, "x"), driver="550.54"))
    assert labels["nvidia.com/cuda.driver-version.full"] == "550.54"
    assert "nvidia.com/cuda.driver-version.revision" not in labels


def test_mig_instances_are_counted_by_profile() -> None:
    instances = tuple(
        MigInstance(uuid=DeviceId(f"MIG-{i}"), profile=profile, memory_bytes=memory * _GIB)
        for i, (profile, memory) in enumerate([("1g.5gb", 5), ("1g.5gb", 5), ("2g.10gb", 10)])
    )
    node = _node(_gpu(0, "NVIDIA A100-SXM4-40GB", mig=instances))
    labels = node_labels(node)
    assert labels["nvidia.com/mig.capable"] == "true"
    assert labels["nvidia.com/mig.strategy"] == "mixed"
    assert labels["nvidia.com/mig-1g.5gb.count"] == "2"
    assert labels["nvidia.com/mig-1g.5gb.memory"] == "5120"
    assert labels["nvidia.com/mig-1g.5gb.product"] == "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"
    assert labels["nvidia.com/mig-2g.10gb.count"] == "1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NVIDIA GeForce RTX 5060 Ti", "NVIDIA-GeForce-RTX-5060-Ti"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3"),
        ("Quadro (TM)  RTX/6000 ", "Quadro-TM-RTX6000"),
        ("-x-", "x"),
        ("日本", ""),
        ("x" * 62 + " y", "x" * 62),
    ],
)
def test_model_names_become_label_values(text: str, value: str) -> None:
    assert sanitise(text) == value


@given(st.text(max_size=200))
def test_every_model_name_becomes_a_value_that_the_api_server_takes(text: str) -> None:
    assert re.fullmatch(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", sanitise(text))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("nvidia.com/gpu.product", True),
        ("nvidia.com/cuda.driver.major", True),
        ("nvidia.com/mig-1g.5gb.count", True),
        ("nvidia.com/gpu.present", False),
        ("nvidia.com/gpu.deploy.driver", False),
        ("nvidia.com/mig.config", False),
        ("nvidia.com/gpu", False),
        ("accelerator", False),
    ],
)
def test_labels_of_the_operator_are_not_feature_labels(name: str, ours: bool) -> None:
    assert is_feature_label(name) is ours
