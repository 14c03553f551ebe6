"""The machines and GPU models that can be simulated, read from `profiles/*.json` and `models.json`.

Facts of a model have the names that the C library knows (`GPU_NUMBERS`, `GPU_TEXTS` in machine.h);
a fact that a card does not have is left out, and the library then answers NOT_SUPPORTED. What a
machine makes of them (UUIDs, links) is in `description`.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

Fact = int | str


class UnknownProfileError(ValueError):
    """No such profile or model; the text lists those there are."""


class MigShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a MIG profile of a model consists of; instance ids are counted from the first."""

    first_gpu_instance: int
    slices: int
    multiprocessors: int
    copy_engines: int
    decoders: int
    encoders: int
    jpegs: int
    ofas: int
    memory_mib: int


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GPU model."""

    pci_class: str
    facts: dict[str, Fact]
    mig_profiles: dict[str, MigShape] = {}


class ProfileGpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU of a profile; a `numa_node` of -1 is what sysfs says on machines without NUMA."""

    model: str
    bdf: str
    numa_node: int = -1
    mig: list[str] = []
    facts: dict[str, Fact] = {}


class NvLinks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """NVLinks: so many of each GPU to the switches, or of each pair of GPUs without switches."""

    links: int
    switches: list[str] = []


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine; topology levels are those of nvmlGpuTopologyLevel_t."""

    description: str
    driver: str
    cuda: str
    gpus: list[ProfileGpu]
    topology_same_node: int
    topology_other_node: int
    node_cpus: list[str] = []
    nvlink: NvLinks | None = None


def load_profile(name: str) -> Profile:
    """Read the profile `name`; raises `UnknownProfileError`."""
    folder = _here() / "profiles"
    path = folder / f"{name}.json"
    if name not in profile_names():
        raise UnknownProfileError(f"no profile {name!r}; there are {', '.join(profile_names())}")
    return msgspec.json.decode(path.read_bytes(), type=Profile)


def profile_names() -> list[str]:
    """All profiles, sorted."""
    found = (path.name for path in (_here() / "profiles").iterdir())
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))


def load_model(name: str) -> Model:
    """Read the GPU model `name`; raises `UnknownProfileError`."""
    models = msgspec.json.decode((_here() / "models.json").read_bytes(), type=dict[str, Model])
    if name not in models:
        raise UnknownProfileError(f"no GPU model {name!r}; there are {', '.join(sorted(models))}")
    return models[name]


def known_facts() -> frozenset[str]:
    """The names of facts that the C library knows, read from its header."""
    header = (_here() / "machine.h").read_text(encoding="utf-8")
    return frozenset(re.findall(r"\bX\(([a-z_0-9]+)\)", header))


def _here() -> Traversable:
    return files("localcluster.nvml")
