"""The ConfigMap that tells a pod's containers which devices are theirs, before the pod is bound.

Only the annotation path needs it: elsewhere kubelet's device plugin tells them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from extender.binding import handover
from extender.binding.handover import ConfigMap
from extender.cluster import Bid, Cluster
from extender.placement.facts import ClaimKey, PodFacts
from extender.placement.state import Reservation
from kube.client import Client
from kube.errors import Conflict, NotFound

#: Attempts to get past a ConfigMap that an earlier bind of the same pod left.
_ATTEMPTS = 3


class DeviceListTaken(Exception):
    """The ConfigMap that the pod names is not its own; the text says what to do."""


class DeviceLists:
    """Creates ConfigMaps, and deals with those of binds that broke off. Raises `KubeError` too."""

    def __init__(self, client: Client, cluster: Cluster) -> None:
        self._client = client
        self._cluster = cluster

    def hand_over(self, bid: Bid, reservation: Reservation) -> Reservation:
        """Make sure that the pod's ConfigMap tells what is reserved; return what is reserved.

        That may be what an earlier bind of this pod handed over: of this process, whose answer was
        lost, or of a leader before us.
        """
        claim = bid.pod.claim
        if claim is None:
            return reservation
        if not reservation.assignment.containers:
            self._leave_nothing(bid.pod, claim)
            return reservation
        for _ in range(_ATTEMPTS):
            try:
                self._client.create(_collection(claim), handover.config_map(reservation, claim))
            except Conflict:
                reservation, reused = self._take_up(bid, reservation, claim)
                if reused:
                    return reservation
            else:
                return reservation
        raise DeviceListTaken(f"ConfigMap {claim} comes back each time that it is deleted")

    def _leave_nothing(self, pod: PodFacts, claim: ClaimKey) -> None:
        """Make sure that there is no ConfigMap: where kubelet's plugin chooses, it would overrule.

        One may be there from a bind to another node that broke off. Or the pod is a copy of one
        that is just gone, for names are random, and the garbage collector needs a moment.
        """
        if not self._cluster.snapshot().may_be_told(claim):
            return
        with suppress(NotFound):
            found = self._client.get(_path(claim), type=ConfigMap)
            _check_owner(found, pod, claim)
            self._client.delete(_path(claim), uid=found.metadata.uid)

    def _take_up(
        self, bid: Bid, reservation: Reservation, claim: ClaimKey
    ) -> tuple[Reservation, bool]:
        """Use the ConfigMap that is there if what it tells can still be had; else delete it."""
        try:
            found = self._client.get(_path(claim), type=ConfigMap)
        except NotFound:
            return reservation, False
        _check_owner(found, bid.pod, claim)
        told = handover.told_by(found)
        if told is not None and told != reservation.assignment.containers:
            outcome = self._cluster.reserve(replace(bid, earlier=told))
            if isinstance(outcome, Reservation):
                reservation = outcome
        if told == reservation.assignment.containers:
            return reservation, True
        with suppress(NotFound, Conflict):  # somebody else was faster: look again
            self._client.delete(_path(claim), uid=found.metadata.uid)
        return reservation, False


def _check_owner(found: ConfigMap, pod: PodFacts, claim: ClaimKey) -> None:
    if handover.owner_of(found) != pod.uid:
        raise DeviceListTaken(
            f"ConfigMap {claim} tells the GPUs of another pod: create this pod again without the "
            "annotation gpudetour.io/devices-from"
        )


def _collection(claim: ClaimKey) -> str:
    namespace, _, _ = claim.partition("/")
    return f"/api/v1/namespaces/{namespace}/configmaps"


def _path(claim: ClaimKey) -> str:
    _, _, name = claim.partition("/")
    return f"{_collection(claim)}/{name}"
