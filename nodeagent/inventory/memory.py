"""What is known of the GPUs of a node over time.

A GPU that was seen once is not forgotten until the machine reboots: when it stops answering, it
stays, as unhealthy, with what was known of it. No IO; time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from gpus.model import DeviceId, Gpu, Health, NodeInventory, Source
from nodeagent.inventory.source import Sighting, Survey
from nodeagent.inventory.standing import HoldDown, Moment, Standing, Verdict, advance, recalled
from nodeagent.inventory.xids import weight_of

#: Facts that do not change while the GPU is the same one, so that what was told once holds on.
_LASTING = (
    "minor", "bdf", "product", "memory_bytes", "compute_capability", "architecture", "numa_node",
    "display", "mig_capable",
)  # fmt: skip

#: Names of the sources for people.
_NAMES = {
    Source.NVML: "NVML",
    Source.NVIDIA_SMI: "nvidia-smi",
    Source.PROC: "NVIDIA's kernel module",
    Source.SYSFS: "the PCI bus",
}


@dataclass(slots=True)
class Memory:
    """All GPUs that were seen, with their facts and how they stand; for one thread at a time."""

    rule: HoldDown
    _known: dict[DeviceId, Gpu] = field(default_factory=dict)
    _standings: dict[DeviceId, Standing] = field(default_factory=dict)

    def recall(self, published: NodeInventory, *, now: Moment) -> None:
        """Take over what an earlier agent published, where nothing newer is known."""
        for gpu in published.gpus:
            self._known.setdefault(gpu.uuid, gpu)
            present = self._standings.get(gpu.uuid, Standing()).health
            if gpu.health is not Health.HEALTHY and present in (Health.HEALTHY, gpu.health):
                self._standings[gpu.uuid] = recalled(
                    gpu.health,
                    gpu.health_reason,
                    since=gpu.health_since,
                    weight=weight_of(gpu.health_reason),
                    now=now,
                )

    def strike(self, uuid: DeviceId | None, reason: str, *, now: Moment) -> None:
        """Count a failure that was reported once; without a UUID against all GPUs, as NVIDIA's
        device plugin does.
        """
        verdict = Verdict(health=Health.FAULTY, reason=reason, weight=weight_of(reason))
        for struck in [uuid] if uuid is not None else list(self._known):
            self._advance(struck, verdict, now)

    def update(self, survey: Survey, *, why: str, now: Moment) -> tuple[Gpu, ...]:
        """All GPUs after another look, by index.

        `why` is why no better source was used; GPUs that are only known to exist are unmonitored
        for that reason.
        """
        seen = {sighting.gpu.uuid: sighting for sighting in survey.sightings}
        on_bus = {withheld.bdf for withheld in survey.withheld if withheld.bdf}
        listed = {uuid: self._merged(sighting) for uuid, sighting in seen.items()}
        self._known = _with_indices(listed, self._known)
        for uuid, gpu in self._known.items():
            if uuid in seen:
                verdict = _verdict(listed[uuid], why)
            else:
                verdict = _of_missing(survey.source, on_bus=gpu.bdf in on_bus, why=why)
            self._advance(uuid, verdict, now)
        shown = (self._shown(gpu) for gpu in self._known.values())
        return tuple(sorted(shown, key=lambda gpu: gpu.index))

    def silence(self, why: str, *, now: Moment) -> tuple[Gpu, ...]:
        """All GPUs when no source answers at all."""
        for uuid in self._known:
            self._advance(uuid, Verdict(health=Health.UNMONITORED, reason=why), now)
        shown = (self._shown(gpu) for gpu in self._known.values())
        return tuple(sorted(shown, key=lambda gpu: gpu.index))

    def _advance(self, uuid: DeviceId, verdict: Verdict, now: Moment) -> None:
        standing = self._standings.get(uuid, Standing())
        self._standings[uuid] = advance(standing, verdict, now=now, rule=self.rule)

    def _merged(self, sighting: Sighting) -> Gpu:
        gpu, known = sighting.gpu, self._known.get(sighting.gpu.uuid)
        if known is None:
            return gpu
        if not sighting.complete:
            return replace(
                known, index=gpu.index, health=gpu.health, health_reason=gpu.health_reason
            )
        absent = {name: getattr(known, name) for name in _LASTING if getattr(gpu, name) is None}
        return replace(gpu, **absent)

    def _shown(self, gpu: Gpu) -> Gpu:
        standing = self._standings[gpu.uuid]
        return replace(
            gpu,
            health=standing.health,
            health_reason=standing.shown(self.rule),
            health_since=standing.since,
        )


def _verdict(gpu: Gpu, why: str) -> Verdict:
    return Verdict(health=gpu.health, reason=gpu.health_reason or why)


def _of_missing(source: Source, *, on_bus: bool, why: str) -> Verdict:
    if source is Source.SYSFS and on_bus:
        return Verdict(health=Health.UNMONITORED, reason=why)
    return Verdict(health=Health.LOST, reason=f"{_NAMES[source]} no longer lists it")


def _with_indices(
    listed: Mapping[DeviceId, Gpu], known: Mapping[DeviceId, Gpu]
) -> dict[DeviceId, Gpu]:
    """The listed GPUs and those that are missing, which keep their index unless it is taken."""
    taken = {gpu.index for gpu in listed.values()}
    merged = dict(listed)
    for uuid, gpu in known.items():
        if uuid in listed:
            continue
        index = _free_index(taken) if gpu.index in taken else gpu.index
        taken.add(index)
        merged[uuid] = replace(gpu, index=index)
    return merged


def _free_index(taken: Collection[int]) -> int:
    return next(index for index in count(len(taken)) if index not in taken)
