"""Who holds which GPU, told event by event: the auditor's memory, and what it finds wrong.

Knows GPUs by the pods' `assigned` annotation alone, and none of the product's code that writes or
reads it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

_ASSIGNED = "gpudetour.io/assigned"
_GPU = "nvidia.com/gpu"
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What nodes have: the GPUs of those on the annotation path, the count of the others."""

    devices: Mapping[str, frozenset[str]]
    counts: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class Record:
    """One pod, by its UID."""

    uid: str
    name: str
    gpus: int
    node: str = ""
    assigned: str = ""
    epoch: int = 0
    devices: frozenset[str] = frozenset()
    #: `time.monotonic()` when the Binding was seen.
    bound: float = 0.0
    over: bool = False


@dataclass(slots=True)
class Books:
    """Who holds what, event by event in the order of the API server. No IO, no clock."""

    hardware: Hardware
    records: dict[str, Record] = field(default_factory=dict)
    bound: list[Record] = field(default_factory=list)
    living: set[str] = field(default_factory=set)
    holders: dict[str, str] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    epoch: int = 0
    faults: list[str] = field(default_factory=list)

    def see(self, pod: Object, *, gone: bool, now: float) -> Record:
        """Take note of a pod as it is now, or as it was last."""
        meta = pod["metadata"]
        record = self.records.get(meta["uid"])
        if record is None:
            record = Record(uid=meta["uid"], name=meta["name"], gpus=_asked(pod))
            self.records[record.uid] = record
            self.living.add(record.uid)
        node = pod["spec"].get("nodeName", "")
        assigned = (meta.get("annotations") or {}).get(_ASSIGNED, "")
        if not record.node and node:
            record.node, record.assigned, record.bound = node, assigned, now
            self._take(record)
        elif (node, assigned) != (record.node, record.assigned):
            self._fault(record, f"was {record.node} {record.assigned}, is {node} {assigned}")
        if gone and not record.node:
            self._fault(record, "is gone and was never bound")
        if (gone or pod["status"].get("phase") in _ENDED) and not record.over:
            self._over(record)
        return record

    def relisted(self, pods: Iterable[Object], *, now: float) -> None:
        """Take a whole listing in; what it lacks is gone."""
        listed = {pod["metadata"]["uid"]: pod for pod in pods}
        for uid in self.living - listed.keys():
            record = self.records[uid]
            if not record.node:
                self._fault(record, "is gone and was never seen bound")
            self._over(record)
        for pod in listed.values():
            self.see(pod, gone=False, now=now)

    def _take(self, record: Record) -> None:
        self.bound.append(record)
        if not record.assigned:
            return self._fault(record, f"was bound to {record.node} by nobody of ours")
        told = json.loads(record.assigned)
        record.epoch = int(told["epoch"])
        record.devices = frozenset(d for ids in told["containers"].values() for d in ids)
        if record.epoch < self.epoch:
            self._fault(record, f"was bound in epoch {record.epoch} after one of {self.epoch}")
        self.epoch = max(self.epoch, record.epoch)
        if record.node in self.hardware.devices:
            return self._took_devices(record)
        self.used[record.node] += record.gpus
        if self.used[record.node] > self.hardware.counts[record.node] or record.devices:
            self._fault(record, f"is one too many on {record.node}, or chose {record.devices}")
        return None

    def _took_devices(self, record: Record) -> None:
        if len(record.devices) != record.gpus:
            self._fault(record, f"asked for {record.gpus} GPUs and got {sorted(record.devices)}")
        if not record.devices <= self.hardware.devices[record.node]:
            self._fault(record, f"got GPUs that {record.node} does not have")
        for device in record.devices:
            other = self.holders.setdefault(device, record.uid)
            if other != record.uid:
                self._fault(record, f"got {device}, which {self.records[other].name} holds")

    def _over(self, record: Record) -> None:
        record.over = True
        self.living.discard(record.uid)
        if record.node in self.hardware.counts:
            self.used[record.node] -= record.gpus
        for device in record.devices:
            if self.holders.get(device) == record.uid:
                del self.holders[device]

    def _fault(self, record: Record, text: str) -> None:
        self.faults.append(f"{record.name} ({record.uid}) {text}")


def epoch_of(pod: Object) -> int:
    """The epoch in which a pod was bound; 0 where it was not."""
    text = (pod["metadata"].get("annotations") or {}).get(_ASSIGNED)
    return int(json.loads(text)["epoch"]) if text else 0


def _asked(pod: Object) -> int:
    containers = pod["spec"]["containers"]
    return sum(int((c["resources"].get("limits") or {}).get(_GPU, 0)) for c in containers)
