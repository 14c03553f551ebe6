"""Twenty authorities, one after the other, while pods are admitted: a real API server, the shipped
webhook, two processes that rotate at once, and lifetimes of seconds.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import urllib3

from localcluster import shipped
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.certs.keeping import Keeper, ca_bundle, granted, secret, webhook

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(900)]

Object = dict[str, Any]

ROTATIONS = 20
#: Seconds.
PROPAGATION = 1.0
#: A third of a leaf's life and a sixth of an authority's are what a slow machine may take to renew
#: and to read.
OPTIONS = {
    "--ca-lifetime": "30s",
    "--server-lifetime": "15s",
    "--client-lifetime": "15s",
    "--propagation": f"{PROPAGATION:.0f}s",
    "--every": "0.5s",
}
REQUESTS_A_SECOND = 20
THREADS = 4
GPU_POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "rotation-"},
    "spec": {
        "containers": [
            {"name": "main", "image": "x", "resources": {"limits": {"nvidia.com/gpu": 1}}}
        ]
    },
}


class Tally:
    """How often something went well, and every time that it did not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.well = 0
        self.faults: list[str] = []

    def take(self, attempt: Callable[[], str | None]) -> None:
        try:
            fault = attempt()
        except (ApiError, OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            fault = repr(error)
        with self._lock:
            if fault is None:
                self.well += 1
            else:
                self.faults.append(fault)


@contextmanager
def over_and_over(attempt: Callable[[], str | None], *, a_second: float) -> Iterator[Tally]:
    """Do something so many times a second, on a thread."""
    stop, tally = threading.Event(), Tally()

    def run() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / a_second, time.monotonic() - 1)
            tally.take(attempt)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """Objects applied, nothing started."""
    del control_plane_parts
    with LocalCluster(tmp_path_factory.mktemp("rotation") / "cluster") as cluster:
        stack = Stack(cluster)
        cluster.apply(shipped.cluster_objects())
        cluster.apply(shipped.admission(stack.webhook_url))
        # No pass may fail from the first one on.
        granted(cluster)
        yield stack


def admit(cluster: LocalCluster) -> str | None:
    """Let the API server admit a GPU pod; return what is wrong with it."""
    pod = cluster.api.create("/api/v1/namespaces/default/pods?dryRun=All", GPU_POD)
    annotations = pod["metadata"].get("annotations", {})
    return None if "gpudetour.io/devices-from" in annotations else "not mutated"


def refused(cluster: LocalCluster) -> str | None:
    """The same, where the API server may refuse the pod as well."""
    try:
        return admit(cluster)
    except ApiError as error:
        return str(error)


class LateReader:
    """Opens connections to the webhook, trusting the caBundle as it was a while ago."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        host, port = stack.webhook_url.removeprefix("https://").split(":")
        self._address = (host, int(port))
        self._bundles: deque[tuple[float, bytes]] = deque()
        self.leaves: set[str] = set()
        self.authorities: set[bytes] = set()

    def __call__(self) -> str | None:
        bundle = self._trusted()
        context = ssl.create_default_context(cadata=bundle.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with (
            socket.create_connection(self._address, timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=self._address[0]) as wrapped,
        ):
            shown = wrapped.getpeercert(binary_form=True)
        assert shown is not None
        self.leaves.add(hashlib.sha256(shown).hexdigest())
        return None

    def _trusted(self) -> bytes:
        """Return the bundle of up to `PROPAGATION` seconds ago."""
        now = time.monotonic()
        self._bundles.append((now, ca_bundle(self._stack.cluster)))
        while len(self._bundles) > 1 and self._bundles[1][0] <= now - PROPAGATION:
            self._bundles.popleft()
        return self._bundles[0][1]


def test_twenty_authorities_follow_each_other_and_every_pod_is_admitted(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    cluster = stack.cluster
    keepers = [Keeper(cluster, name, OPTIONS) for name in ("certs-1", "certs-2")]
    for keeper in keepers:
        keeper.start()
    authorities: set[bytes] = set()

    def enough() -> bool:
        authorities.add(secret(cluster, "gpudetour-ca").get("tls.crt", b""))
        return len(authorities) > ROTATIONS

    with ExitStack() as held:
        held.enter_context(webhook(stack, period=PROPAGATION / 4))
        pid = cluster.processes.pid("webhook")
        reader = LateReader(stack)
        # The first bundle was written before the webhook was there to be called.
        until(lambda: refused(cluster) is None, timeout=30, what="the first pod")
        rate = REQUESTS_A_SECOND / THREADS
        admissions = [
            held.enter_context(over_and_over(lambda: admit(cluster), a_second=rate))
            for _ in range(THREADS)
        ]
        handshakes = held.enter_context(over_and_over(reader, a_second=10))
        began = time.monotonic()
        until(enough, timeout=800, what=f"{ROTATIONS} authorities", interval=0.2)
        took = time.monotonic() - began
        assert cluster.processes.pid("webhook") == pid

    admitted = sum(tally.well for tally in admissions)
    faults = [fault for tally in admissions for fault in tally.faults]
    said = (
        f"{len(authorities) - 1} authorities and {len(reader.leaves)} webhook certificates in "
        f"{took:.0f} s: {admitted} pods admitted, {handshakes.well} new connections by late "
        f"readers, faults: {len(faults)} and {len(handshakes.faults)}"
    )
    record_property("measured", said)
    sys.stderr.write(f"\n{said}\n")
    assert faults == []
    assert handshakes.faults == []
    assert admitted > took * REQUESTS_A_SECOND / 4  # the machine may be slow, not idle
    assert len(reader.leaves) >= ROTATIONS
    for keeper in keepers:
        assert keeper.alive()
        assert keeper.metric("gpudetour_certificate_passes_total", result="failed") == 0
        assert not any("PRIVATE KEY" in str(record) for record in keeper.records())
