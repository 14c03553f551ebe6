"""Says that a process is alive, by a Lease that nobody else holds. No election: `kube.leases`."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from kube.client import MERGE_PATCH, Client
from kube.errors import KubeError, NotFound
from kube.objects import Lease, LeaseSpec, ObjectMeta, OwnerReference
from kube.timestamps import micro_time

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Renews one Lease every `interval` seconds; readers take us for dead `duration` after a beat.

    The defaults are kubelet's for its own node Lease.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        owner: Callable[[], OwnerReference] | None = None,
        timing: tuple[float, float] = (10.0, 40.0),
    ) -> None:
        """Prepare to beat; `timing` is (interval, duration) in seconds.

        `owner` is asked whenever the Lease has to be created; the Lease goes when its owner goes.
        """
        self._interval, self._duration = timing
        self._client = client.with_timeout(self._interval)
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._meta = ObjectMeta(name=name, namespace=namespace)
        self._identity = identity
        self._owner = owner
        self._failing = False
        #: `time.monotonic()` of the last beat that the API server took; None before the first.
        self.last_beat: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Beat until `stop` is set. The Lease is left to expire: a restart soon beats again."""
        while not stop.is_set():
            try:
                self.beat()
            except KubeError as error:
                if not self._failing:
                    _log.warning("heartbeat not taken", lease=self._meta.name, error=str(error))
                self._failing = True
            stop.wait(self._interval * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    def beat(self) -> None:
        """Renew the Lease once, or create it; raises `KubeError`."""
        spec = LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=max(1, round(self._duration)),
            renew_time=micro_time(datetime.now(UTC)),
        )
        path = f"{self._collection}/{self._meta.name}"
        try:
            self._client.patch(path, {"spec": spec}, content_type=MERGE_PATCH)
        except NotFound:
            owners = [self._owner()] if self._owner is not None else None
            meta = ObjectMeta(
                name=self._meta.name, namespace=self._meta.namespace, owner_references=owners
            )
            self._client.create(self._collection, Lease(metadata=meta, spec=spec))
        if self._failing:
            _log.info("heartbeat taken again", lease=self._meta.name)
        self._failing = False
        self.last_beat = time.monotonic()
