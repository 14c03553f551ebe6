"""kube-scheduler and the extender go on believing each other across new authorities.

kube-scheduler reads certificate and key again for new connections, and its ca.crt when it starts
(1.34.2). So it is restarted once, after a new authority became known and before it signs.
"""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.certs.keeping import Keeper, Mount, mended, secret, webhook
from tests.certs.making import split
from tests.certs.test_rotation_on_a_control_plane import over_and_over
from tests.cluster.pods import bound, gpu_pod, serves_gpus

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(600)]

Object = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
NODE = "gpu-node"
AUTHORITIES = 1
#: An authority becomes known after 100 s and signs after 125 s. By the one a slow machine has put
#: up all parts, by the other it has restarted kube-scheduler.
OPTIONS = {
    "--ca-lifetime": "150s",
    "--server-lifetime": "12s",
    "--client-lifetime": "15s",
    "--propagation": "2s",
    "--every": "0.5s",
}
#: Seconds between looks of kubelet.
PERIOD = 0.5


class Site:
    """The cluster, and pods that come and go."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.cluster = stack.cluster
        self._numbers = itertools.count()

    def authority(self) -> bytes:
        return secret(self.cluster, "gpudetour-ca").get("tls.crt", b"")

    def retiring(self) -> bytes:
        return secret(self.cluster, "gpudetour-ca").get("retiring.crt", b"")

    def place(self) -> None:
        """Let one pod come, get its GPU and go."""
        name = f"pod-{next(self._numbers)}"
        self.cluster.api.create(PODS, gpu_pod(name))
        self.cluster.wait_for(f"{PODS}/{name}", bound, timeout=30)
        self.cluster.api.delete(f"{PODS}/{name}", grace_seconds=0)

    def until_signing(self, authority: bytes) -> None:
        """Go on placing pods until an authority signs what is served."""

        def signs() -> bool:
            self.place()
            return self.authority() == authority and not self.retiring()

        until(signs, timeout=120, what="the authority to sign", interval=0.5)

    def until_known(self) -> bytes:
        """Go on placing pods until another authority is in the files of kube-scheduler."""
        ca_file = self.stack.certificates / "scheduler-client" / "ca.crt"

        def known() -> bytes | None:
            self.place()
            newest = self.authority()
            return newest if self.retiring() and newest in split(ca_file.read_bytes()) else None

        return until(known, timeout=200, what="another authority", interval=0.5)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Site]:
    del control_plane_parts
    folder = tmp_path_factory.mktemp("believed")
    with LocalCluster(folder / "cluster") as cluster, ExitStack() as held:
        stack = Stack(cluster)
        cluster.apply(shipped.cluster_objects())
        cluster.apply(shipped.admission(stack.webhook_url))
        Keeper(cluster, "certs-1", OPTIONS).start()
        mended(cluster)
        for leaf in ("extender", "scheduler-client"):
            mount = Mount(cluster, leaf, stack.certificates / leaf, period=PERIOD)
            assert held.enter_context(mount).mounted.wait(30)
        held.enter_context(webhook(stack, period=PERIOD))
        stack.start_extender()
        stack.use_extender()
        cluster.create_simulated_nodes([NODE])
        root = folder / "driver"
        install(root, "8x-h100", node=NODE)
        stack.start_agent(NODE, root)
        cluster.wait_for(f"/api/v1/nodes/{NODE}", serves_gpus, timeout=60)
        yield Site(stack)


class Caller:
    """Calls the extender on a new connection each time, with the files of kube-scheduler."""

    def __init__(self, stack: Stack) -> None:
        self._folder = stack.certificates / "scheduler-client"
        self._url = stack.extender_url

    def __call__(self) -> str | None:
        context = ssl.create_default_context()
        folder = (self._folder / "..data").resolve()
        context.load_verify_locations(folder / "ca.crt")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with urllib3.PoolManager(ssl_context=context, retries=False, timeout=10) as pool:
            status = pool.request("POST", f"{self._url}/filter", body=b"{}").status
        return None if status == 200 else f"status {status}"


def test_pods_are_placed_while_authorities_follow_each_other(site: Site) -> None:
    site.place()
    with over_and_over(Caller(site.stack), a_second=5) as calls:
        for _ in range(AUTHORITIES):
            newest = site.until_known()
            site.stack.use_extender()  # restarts kube-scheduler
            site.until_signing(newest)

    assert calls.faults == []
    # All connections are new ones: kube-scheduler presents what it has read since it started, and
    # verifies what the newest authority signed.
    leaf = Path(site.stack.certificates / "extender" / "tls.crt")
    before = leaf.read_bytes()
    until(lambda: leaf.read_bytes() != before, timeout=30, what="another leaf")
    site.stack.stop("extender")
    site.stack.start_extender()
    began = time.time()
    site.place()
    told = presented(site.stack)
    assert told.keys() == {"extender", "scheduler-client"}
    # It was valid when it was presented; it lives for seconds.
    assert told["scheduler-client"] > began


def presented(stack: Stack) -> dict[str, float]:
    """What the extender tells of certificates: when its own, and its caller's, expire."""
    with urllib3.PoolManager(retries=False, timeout=10.0) as pool:
        text = pool.request("GET", f"{stack.side_url('extender')}/metrics").data.decode()
    lines = [
        x for x in text.splitlines() if x.startswith("gpudetour_certificate_not_after_seconds{")
    ]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}
