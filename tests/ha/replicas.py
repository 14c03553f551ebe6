"""Replicas of the extender as processes, each behind an interceptor of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.front import Endpoint
from localcluster.kubeconfig import write_kubeconfig
from localcluster.ports import free_ports
from localcluster.stack import EXTENDER, NAMESPACE
from localcluster.waiting import until
from tests.ha.interceptor import Interceptor
from tests.ha.traps import binding, config_map

_LOOPBACK = "127.0.0.1"


class Replica:
    """One replica with the shipped command line; it is started, stopped, killed and frozen here."""

    def __init__(
        self, name: str, cluster: LocalCluster, *, tls: Path, api: Interceptor, folder: Path
    ) -> None:
        """`tls` holds its serving certificate, `folder` is for its kubeconfig."""
        self.name = name
        self.api = api
        #: Whether it was asked to stop and not started again.
        self.leaving = False
        self._cluster = cluster
        port, side_port = free_ports(2)
        kubeconfig = folder / f"{name}.kubeconfig"
        self._credentials = kubeconfig
        self._side = f"http://{_LOOPBACK}:{side_port}"
        self._options = {
            "--kubeconfig": str(kubeconfig),
            "--host": _LOOPBACK,
            "--port": str(port),
            "--side-host": _LOOPBACK,
            "--side-port": str(side_port),
            "--tls-dir": str(tls),
        }
        self.endpoint = Endpoint(port=port, ready_url=f"{self._side}/readyz")

    def identify(self, token: str, *, ca_file: Path) -> None:
        """Write the kubeconfig that leads to the interceptor, with a service account's token."""
        write_kubeconfig(self._credentials, server=self.api.url, ca_file=ca_file, credentials=token)

    @property
    def running(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self._cluster.processes.alive(self.name)

    @property
    def serves(self) -> bool:
        """Whether it says that it is ready."""
        with urllib3.PoolManager(retries=False, timeout=1.0) as pool:
            try:
                return pool.request("GET", self.endpoint.ready_url).status == HTTPStatus.OK
            except urllib3.exceptions.HTTPError:
                return False

    def said(self, event: str) -> list[Mapping[str, Any]]:
        """What it logged as that event, in all its lives."""
        entries = []
        for line in self._cluster.processes.log(self.name).read_text().splitlines():
            if event in line:
                with suppress(ValueError):  # half a line of one that was killed
                    entries.append(json.loads(line))
        return [entry for entry in entries if entry["event"] == event]

    @property
    def refused(self) -> int:
        """How many writes of binds the API server refused because of their epoch."""
        kinds = (config_map, binding)
        return sum(self.api.answered(kind, HTTPStatus.FORBIDDEN) for kind in kinds)

    def start(self) -> None:
        """Start it; it may take a while until it serves, or another may lead."""
        self.leaving = False
        self._cluster.processes.start(self.name, shipped.command_line(EXTENDER, self._options))

    def stop(self) -> None:
        """Stop it as Kubernetes does; returns when it is gone."""
        self._cluster.processes.stop(self.name)

    def terminate(self) -> None:
        """Ask its first process to stop, as kubelet does, and return at once."""
        pid = self._cluster.processes.pid(self.name)
        if pid is None:
            raise ValueError(f"{self.name} does not run")
        self.leaving = True
        os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it with no chance to say anything; returns when it is gone."""
        self._signal(signal.SIGKILL)
        until(lambda: not self.running, timeout=30, what=f"the end of {self.name}")

    def freeze(self) -> None:
        """Stop its clockwork: it neither acts nor knows that time goes by."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it was."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self._cluster.processes.signal(self.name, number)


def service_account_token(cluster: LocalCluster) -> str:
    """A token with the rights of the extender and no others."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 8 * 3600},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{EXTENDER}/token"
    return str(cluster.api.create(path, request)["status"]["token"])
