"""Looks after reservations that the watch has not settled: binds without an answer, lost pods."""

from __future__ import annotations

import threading

import structlog

from extender.cluster import Cluster
from extender.placement.state import Reservation
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.objects import Pod
from service.logs import ERROR, NODE, POD

#: Seconds after which a Binding without an answer cannot take effect any more: the API server ends
#: a request after 60 s (--request-timeout), and the rest is for a slow etcd and for clocks.
SETTLED_AFTER = 90.0
#: Seconds between looks.
_EVERY = 15.0

log = structlog.get_logger()


class Janitor:
    """Reads the pods of overdue reservations, and gives back what no Binding can claim any more.

    A pod that is bound keeps its reservation until the watch shows it: what is read here must not
    overtake the watch, or an older event would undo it.
    """

    def __init__(
        self, client: Client, cluster: Cluster, *, settled_after: float = SETTLED_AFTER
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._settled_after = settled_after

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        while not stop.wait(_EVERY):
            self.look()

    def look(self) -> None:
        """Settle every overdue reservation that can be settled now."""
        for reservation in self._cluster.overdue(self._settled_after):
            keys = {POD: f"{reservation.namespace}/{reservation.name}", NODE: reservation.node}
            try:
                keep = self._may_be_bound(reservation)
            except KubeError as error:
                log.warning("a reservation cannot be looked into", **keys, **{ERROR: str(error)})
                continue
            if not keep:
                self._cluster.release(reservation, even_sent=True)
                log.info("reservation given back", **keys)

    def _may_be_bound(self, reservation: Reservation) -> bool:
        path = f"/api/v1/namespaces/{reservation.namespace}/pods/{reservation.name}"
        try:
            pod = self._client.get(path, type=Pod)
        except NotFound:
            return False
        ended = pod.status.phase in ("Succeeded", "Failed")
        same = pod.metadata.uid == reservation.uid
        return same and not ended and pod.spec.node_name == reservation.node
