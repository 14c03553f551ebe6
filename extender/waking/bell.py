"""Makes kube-scheduler try rejected pods again where it has overlooked a change.

Any change of the objects that it watches does that for pods that an extender rejected (its
framework/types.go, UnrollWildCardResource). Of those the CSIStorageCapacity is the one that means
nothing to anybody without its storage class: ours is named after nothing that exists.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping

import structlog

from extender.cluster import Cluster
from extender.waking.waiting import Waiting
from kube.client import MERGE_PATCH, Client
from kube.errors import KubeError, NotFound
from service.logs import ERROR

#: The object that is changed, and its storage class, which is not there.
NAME = "gpudetour-bell"
#: On it, a new value for each ring.
RUNG = "gpudetour.io/rung"
#: Seconds between looks, and the least between two rings.
_EVERY = 0.1
_REST = 1.0

log = structlog.get_logger()


class Bell:
    """Rings when a pod was overlooked, while this replica leads, and when it begins to.

    What a leader before us answered, and from which ledger, nobody knows.
    """

    def __init__(
        self,
        client: Client,
        cluster: Cluster,
        waiting: Waiting,
        *,
        namespace: str,
        leading: Callable[[], bool],
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._waiting = waiting
        self._leading = leading
        self._collection = f"/apis/storage.k8s.io/v1/namespaces/{namespace}/csistoragecapacities"

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        led = False
        while not stop.wait(_EVERY):
            # Of that, the scheduler knows nothing at all.
            self._cluster.expire_holds()
            openings = self._cluster.openings()
            leads = self._leading()
            overlooked = self._waiting.overlooked(self._cluster.snapshot(), openings)
            if leads and (overlooked or not led):
                self._ring()
                stop.wait(_REST)
            led = leads

    def _ring(self) -> None:
        metadata = {"name": NAME, "annotations": {RUNG: str(uuid.uuid4())}}
        try:
            self._put(metadata)
        except KubeError as error:
            log.warning("kube-scheduler cannot be called", **{ERROR: str(error)})
        else:
            log.info("kube-scheduler called for pods that may fit now")

    def _put(self, metadata: Mapping[str, object]) -> None:
        try:
            self._client.patch(
                f"{self._collection}/{NAME}", {"metadata": metadata}, content_type=MERGE_PATCH
            )
        except NotFound:
            body = {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "CSIStorageCapacity",
                "metadata": metadata,
                "storageClassName": NAME,
            }
            self._client.create(self._collection, body)
