"""kube-scheduler: its configuration and command line; started and stopped apart from the rest of
the control plane.
"""

from __future__ import annotations

import json
from pathlib import Path

import urllib3
import yaml

from localcluster.files import write_atomically
from localcluster.layout import Layout
from localcluster.processes import Processes

_NAME = "kube-scheduler"
_LOOPBACK = "127.0.0.1"
_READY_TIMEOUT = 60.0


class Scheduler:
    """The kube-scheduler of one state folder; its certificate and kubeconfig must be there."""

    def __init__(self, layout: Layout, *, port: int, program: Path, processes: Processes) -> None:
        self._layout = layout
        self._program = program
        self._port = port
        self._processes = processes

    @property
    def url(self) -> str:
        """Where it serves /metrics, /healthz and /readyz, without authentication."""
        return f"https://{_LOOPBACK}:{self._port}"

    def start(self, config: Path | None) -> None:
        """Start it with the given KubeSchedulerConfiguration, or the default, and wait until it is
        healthy.
        """
        content = scheduler_configuration(config, kubeconfig=self._layout.kubeconfig(_NAME))
        write_atomically(self._layout.scheduler_config, content.encode())
        self._processes.start(
            _NAME,
            [
                self._program,
                f"--config={self._layout.scheduler_config}",
                f"--secure-port={self._port}",
                "--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics",
                *serving_arguments(self._layout, _NAME),
            ],
        )

        ca_file = self._layout.pki / "ca.crt"
        self._processes.wait_ready(
            _NAME, lambda: _healthy(f"{self.url}/healthz", ca_file), timeout=_READY_TIMEOUT
        )

    def stop(self) -> None:
        """Stop it."""
        self._processes.stop(_NAME)


def scheduler_configuration(config: Path | None, *, kubeconfig: Path) -> str:
    """A KubeSchedulerConfiguration as JSON: `config`, or the default, with our API server as its
    connection.

    kube-scheduler ignores its --kubeconfig option when it is given a file (cmd/kube-
    scheduler/app/options). The default elects no leader: it is alone.
    """
    content: object = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
    }
    if config is not None:
        content = yaml.safe_load(config.read_text())
    if not isinstance(content, dict) or content.get("kind") != "KubeSchedulerConfiguration":
        raise ValueError(f"{config} holds no KubeSchedulerConfiguration")
    connection = {**(content.get("clientConnection") or {}), "kubeconfig": str(kubeconfig)}
    return json.dumps({**content, "clientConnection": connection}, indent=2)


def serving_arguments(layout: Layout, component: str) -> list[str]:
    """How kube-scheduler and kube-controller-manager serve on the loopback address."""
    kubeconfig = layout.kubeconfig(component)
    return [
        f"--bind-address={_LOOPBACK}",
        f"--tls-cert-file={layout.pki / f'{component}-serving.crt'}",
        f"--tls-private-key-file={layout.pki / f'{component}-serving.key'}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
    ]


def _healthy(url: str, ca_file: Path) -> bool:
    with urllib3.PoolManager(ca_certs=str(ca_file), retries=False, timeout=2.0) as pool:
        try:
            return pool.request("GET", url).status == 200
        except urllib3.exceptions.HTTPError:
            return False
