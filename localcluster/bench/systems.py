"""The ways to place GPU pods that are compared. What is measured of them is in `experiment`.

All run the same kube-scheduler with the shipped configuration; the baseline leaves out nothing but
the extender. As it comes, kube-scheduler sends at most 50 requests a second, so that no more pods
are bound; that is shown too, but nothing is compared with it.
"""

from __future__ import annotations

import json
import socket
import sys
from enum import Enum

from gpus.model import Path
from localcluster import shipped
from localcluster.bench.certificates import Certificates
from localcluster.cluster import LocalCluster
from localcluster.files import write_atomically
from localcluster.ports import free_ports
from localcluster.stack import Stack

SHORTLIST = 1
"""How many nodes the stub names for a pod: as many as gpudetour's extender by default."""

_CLIENT = "gpudetour-scheduler"
_READY_TIMEOUT = 30.0


class System(Enum):
    """Who counts GPUs, and where."""

    NATIVE = "kube-scheduler alone"
    THROTTLED = "kube-scheduler as it comes"
    STUB = "do-nothing stub"
    ANNOTATION = "annotation path"
    PLUGIN = "plugin path"

    @property
    def path(self) -> Path | None:
        """How nodes serve GPUs under gpudetour; None where it is not there."""
        match self:
            case System.NATIVE | System.THROTTLED | System.STUB:
                return None
            case System.ANNOTATION:
                return Path.ANNOTATION
            case System.PLUGIN:
                return Path.PLUGIN


class Placement:
    """One system on one cluster. The scheduler does not run until `start_scheduler`."""

    def __init__(self, system: System, cluster: LocalCluster) -> None:
        self._system = system
        self._cluster = cluster
        self.stack = None if system.path is None else Stack(cluster)
        self._stub: _StubProcess | None = None

    def prepare(self) -> None:
        """Start all but the scheduler, and be ready for pods."""
        if self.stack is not None:
            # The calls of filters are counted, and the canary makes calls of its own.
            self.stack.install({"--canary-interval": "0"})
        if self._system is System.STUB:
            self._stub = _StubProcess(self._cluster)
            self._stub.start()
        self._cluster.stop_scheduler()

    def start_scheduler(self, system: System) -> None:
        """Start the scheduler as `system` runs it, which is ours or differs in the scheduler only.

        Returns when it is healthy, maybe already working.
        """
        target = self._cluster.state / "bench-scheduler.json"
        write_atomically(target, json.dumps(self.configuration(system), indent=2).encode())
        self._cluster.restart_scheduler(target)

    def configuration(self, system: System) -> shipped.Object:
        """The KubeSchedulerConfiguration of `system`."""
        if self.stack is not None:
            client = self.stack.certificates / "scheduler-client"
            return shipped.scheduler_configuration(self.stack.extender_url, client=client)
        if self._stub is not None:
            client = self._stub.certificates.client
            return shipped.scheduler_configuration(self._stub.url, client=client)
        return self._without_extender(throttled=system is System.THROTTLED)

    def _without_extender(self, *, throttled: bool) -> shipped.Object:
        configuration = shipped.scheduler_configuration("", client=self._cluster.state)
        del configuration["extenders"]
        if throttled:
            for limit in ("qps", "burst"):
                del configuration["clientConnection"][limit]
        return configuration


class _StubProcess:
    """The do-nothing extender beside one cluster. It ends with it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        (self._port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{self._port}"
        configuration = shipped.scheduler_configuration(self.url, client=cluster.state)
        (extender,) = configuration["extenders"]
        self.certificates = Certificates(
            cluster.state / "stub",
            host=extender["tlsConfig"]["serverName"],
            client_name=_CLIENT,
        )

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        self.certificates.issue()
        # Its own user with the scheduler's rights: Bindings are authorised as for anybody.
        kubeconfig = self._cluster.kubeconfig_for("system:kube-scheduler")
        processes = self._cluster.processes
        processes.start(
            "stub",
            [
                *(sys.executable, "-m", "localcluster.bench.stub"),
                f"--port={self._port}",
                f"--tls-dir={self.certificates.server}",
                f"--client-name={_CLIENT}",
                f"--kubeconfig={kubeconfig}",
                f"--shortlist={SHORTLIST}",
            ],
        )
        processes.wait_ready("stub", lambda: _accepts(self._port), timeout=_READY_TIMEOUT)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
