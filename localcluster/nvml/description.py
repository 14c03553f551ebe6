"""A simulated machine as values, and as the two text files that the C library reads.

Pure: profile and node name in, values and text out. The format is explained in machine.c. UUIDs are
derived from node, profile and slot, so that two nodes never share one and a rebuilt node keeps its
own.
"""

from __future__ import annotations

import uuid

import msgspec

from localcluster.nvml.profiles import Fact, Model, Profile, ProfileGpu, load_model

_UUIDS = uuid.UUID("6c0d1c53-9a44-5c7e-8a3c-0d5b5f7f2a10")

#: "Of no MIG instance", as NVML writes it.
NO_INSTANCE = 0xFFFFFFFF


class Mig(msgspec.Struct, frozen=True):
    """A MIG device: its ids and its profile's name and shape."""

    uuid: str
    profile: str
    gpu_instance: int
    facts: list[int]
    """In the order of machine.c: slices (twice), multiprocessors, engines, memory in MiB."""


class NvLink(msgspec.Struct, frozen=True):
    """One NVLink and what is at its other end."""

    number: int
    kind: str
    remote_bdf: str


class Process(msgspec.Struct, frozen=True):
    """A process on a GPU; `memory` in bytes, `kind` is compute, graphics or mps."""

    pid: int
    memory: int
    name: str = "python3"
    kind: str = "compute"
    gpu_instance: int = NO_INSTANCE


class SimulatedGpu(msgspec.Struct, frozen=True):
    """A GPU in its slot, which it keeps whatever happens to others."""

    slot: int
    uuid: str
    bdf: str
    numa_node: int
    pci_class: str
    model: str
    facts: dict[str, Fact]
    mig: list[Mig] = []
    links: list[NvLink] = []
    topology: dict[int, int] = {}


class Event(msgspec.Struct, frozen=True):
    """Something that NVML reports once; `sequence` never repeats in the life of a machine."""

    sequence: int
    slot: int
    type: int
    data: int


class Fault(msgspec.Struct, frozen=True):
    """A return code of one function ("*": all), for one slot (-1: all)."""

    function: str
    slot: int
    code: int


class Changes(msgspec.Struct):
    """What happened to the machine since it was installed."""

    facts: dict[int, dict[str, Fact]] = {}
    presence: dict[int, str] = {}
    mig: dict[int, list[Mig]] = {}
    processes: dict[int, list[Process]] = {}
    added: list[SimulatedGpu] = []
    events: list[Event] = []
    faults: list[Fault] = []
    hang: str = ""
    hang_slot: int = -1
    init_fault: int = -1
    count: int = -1


class Description(msgspec.Struct, frozen=True):
    """A machine as installed."""

    node: str
    profile: str
    driver: str
    cuda: str
    gpus: list[SimulatedGpu]


def describe(profile: Profile, *, name: str, node: str) -> Description:
    """The machine of a profile for one node."""
    gpus = []
    for slot, wanted in enumerate(profile.gpus):
        gpu = new_gpu(wanted, slot=slot, seed=f"{node}/{name}/{slot}")
        cpus = profile.node_cpus[max(wanted.numa_node, 0)] if profile.node_cpus else "none"
        gpus.append(
            msgspec.structs.replace(
                gpu,
                facts={**gpu.facts, "cpus": cpus},
                links=_links(profile, slot),
                topology=_topology(profile, slot),
            )
        )
    return Description(node=node, profile=name, driver=profile.driver, cuda=profile.cuda, gpus=gpus)


def new_gpu(wanted: ProfileGpu, *, slot: int, seed: str) -> SimulatedGpu:
    """A GPU without links; equal seeds give equal UUIDs."""
    model = load_model(wanted.model)
    facts = {**model.facts, **wanted.facts}
    if "ecc_mode" in facts:
        # Professional cards carry a serial number, GeForce cards do not.
        facts["serial"] = str(uuid.uuid5(_UUIDS, f"serial/{seed}").int)[:13]
    if wanted.mig:
        facts["mig_mode"] = 1
    return SimulatedGpu(
        slot=slot,
        uuid=f"GPU-{uuid.uuid5(_UUIDS, seed)}",
        bdf=wanted.bdf,
        numa_node=wanted.numa_node,
        pci_class=model.pci_class,
        model=wanted.model,
        facts=facts,
        mig=mig_devices(model, wanted.mig, seed=seed),
    )


def mig_devices(model: Model, profiles: list[str], *, seed: str) -> list[Mig]:
    """One MIG device of each named profile; raises `ValueError` for one that the model lacks."""
    devices = []
    for number, profile in enumerate(profiles):
        shape = model.mig_profiles.get(profile)
        if shape is None:
            known = ", ".join(sorted(model.mig_profiles)) or "none: it has no MIG"
            raise ValueError(f"no MIG profile {profile!r} on this model; there are {known}")
        same_kind = profiles[:number].count(profile)
        slices = [shape.slices, shape.slices]
        engines = [shape.copy_engines, shape.decoders, shape.encoders, shape.jpegs, shape.ofas]
        devices.append(
            Mig(
                uuid=f"MIG-{uuid.uuid5(_UUIDS, f'{seed}/mig/{number}/{profile}')}",
                profile=profile,
                gpu_instance=shape.first_gpu_instance + same_kind,
                facts=[*slices, shape.multiprocessors, *engines, shape.memory_mib],
            )
        )
    return devices


def profile_text(machine: Description) -> bytes:
    """The content of `gpudetour-nvml.conf`."""
    major, minor = machine.cuda.split(".")
    lines = [
        f"driver {machine.driver}",
        f"nvml {major}.{machine.driver}",
        f"cuda {int(major) * 1000 + int(minor) * 10}",
    ]
    for gpu in machine.gpus:
        lines += _gpu_lines(gpu)
    return _text(lines)


def control_text(changes: Changes) -> bytes:
    """The content of `gpudetour-nvml.control`."""
    lines = [f"hang {changes.hang} {changes.hang_slot}"] if changes.hang else []
    lines += [f"init_fault {changes.init_fault}", f"count {changes.count}"]
    lines += [
        f"event {e.sequence} {e.slot} {e.type} {e.data} {NO_INSTANCE} {NO_INSTANCE}"
        for e in changes.events
    ]
    lines += [f"fault {f.function} {f.slot} {f.code}" for f in changes.faults]
    for gpu in changes.added:
        lines += _gpu_lines(gpu)
    for slot in sorted({*changes.facts, *changes.presence, *changes.mig, *changes.processes}):
        lines += _change_lines(changes, slot)
    return _text(lines)


def _change_lines(changes: Changes, slot: int) -> list[str]:
    lines = [f"gpu {slot}"]
    if slot in changes.presence:
        lines.append(f"presence {changes.presence[slot]}")
    lines += [f"{key} {value}" for key, value in changes.facts.get(slot, {}).items()]
    if slot in changes.mig:
        lines += ["mig none", *map(_mig_line, changes.mig[slot])]
    for p in changes.processes.get(slot, []):
        compute_instance = NO_INSTANCE if p.gpu_instance == NO_INSTANCE else 0
        lines.append(
            f"process {p.kind} {p.pid} {p.memory} {p.gpu_instance} {compute_instance} {p.name}"
        )
    return lines


def _gpu_lines(gpu: SimulatedGpu) -> list[str]:
    lines = [f"gpu {gpu.slot}", f"uuid {gpu.uuid}", f"bdf {gpu.bdf}", f"numa_node {gpu.numa_node}"]
    lines += [f"minor {gpu.slot}", f"order {gpu.slot}"]
    lines += [f"{key} {value}" for key, value in gpu.facts.items()]
    lines += [f"topology {peer} {level}" for peer, level in gpu.topology.items()]
    lines += [f"nvlink {link.number} {link.kind} {link.remote_bdf}" for link in gpu.links]
    return lines + [_mig_line(mig) for mig in gpu.mig]


def _mig_line(mig: Mig) -> str:
    facts = " ".join(map(str, mig.facts))
    return f"mig {mig.uuid} {mig.profile} {mig.gpu_instance} 0 {facts}"


def _links(profile: Profile, slot: int) -> list[NvLink]:
    if profile.nvlink is None:
        return []
    if switches := profile.nvlink.switches:
        return [
            NvLink(number=n, kind="switch", remote_bdf=switches[n % len(switches)])
            for n in range(profile.nvlink.links)
        ]
    peers = [gpu.bdf for number, gpu in enumerate(profile.gpus) if number != slot]
    ends = [bdf for bdf in peers for _ in range(profile.nvlink.links)]
    return [NvLink(number=n, kind="gpu", remote_bdf=bdf) for n, bdf in enumerate(ends)]


def _topology(profile: Profile, slot: int) -> dict[int, int]:
    own_node = profile.gpus[slot].numa_node
    return {
        peer: (
            profile.topology_same_node if gpu.numa_node == own_node else profile.topology_other_node
        )
        for peer, gpu in enumerate(profile.gpus)
        if peer != slot
    }


def _text(lines: list[str]) -> bytes:
    # A character is a byte, so that a card's name may be described that is not UTF-8.
    return ("\n".join(lines) + "\n").encode("latin-1")
