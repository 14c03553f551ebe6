"""gpudetour itself on a local cluster: shipped objects applied, its processes run on this machine.

Every process has the rights of its own service account and of no other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import urllib3

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.files import write_atomically
from localcluster.ports import free_ports
from localcluster.shipped import Variant
from localcluster.waiting import until

NAMESPACE = "gpudetour-system"
WEBHOOK = "gpudetour-webhook"
EXTENDER = "gpudetour-extender"
AGENT = "gpudetour-node-agent"
#: The agents' service account.
AGENT_ACCOUNT = "default"
CERTS = "gpudetour-certs"

_LOOPBACK = "127.0.0.1"
_READY_TIMEOUT = 60.0


class StackError(Exception):
    """A part of gpudetour did not do its work; the text holds what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletFolders:
    """Where an agent finds kubelet's sockets and where it puts CDI specs."""

    root: Path
    device_plugins: Path
    cdi: Path


class Stack:
    """The parts of gpudetour that belong to one local cluster. They end with it.

    In the variant with a second scheduler, extender and scheduler are pods of their own
    (`localcluster.secondscheduler`).
    """

    def __init__(self, cluster: LocalCluster, *, variant: Variant = Variant.BASE) -> None:
        self.cluster = cluster
        self.variant = variant
        self.folder = cluster.state / "gpudetour"
        self.folder.mkdir(exist_ok=True)
        names = ("webhook", "webhook-side", "extender", "extender-side")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))

    @property
    def certificates(self) -> Path:
        """Folder with what `python -m certs issue` wrote, one folder for each holder."""
        return self.folder / "certs"

    @property
    def webhook_url(self) -> str:
        """Where the webhook serves."""
        return f"https://{_LOOPBACK}:{self._ports['webhook']}"

    @property
    def extender_url(self) -> str:
        """Where the extender serves."""
        return f"https://{_LOOPBACK}:{self._ports['extender']}"

    def side_url(self, part: str) -> str:
        """Where the `webhook` or `extender` serves /healthz, /readyz and /metrics."""
        return f"http://{_LOOPBACK}:{self._ports[f'{part}-side']}"

    def install(self, webhook: Mapping[str, str | None] | None = None) -> None:
        """Apply the objects, issue certificates, start webhook and extender, set the scheduler.

        `webhook` are options of it, given beside those of the shipped manifest.
        """
        self.cluster.apply(shipped.cluster_objects(self.variant))
        self.cluster.apply(shipped.admission(self.webhook_url))
        self.issue_certificates()
        self.start_webhook(webhook)
        if self.variant is Variant.BASE:
            self.start_extender()
            self.use_extender()

    def issue_certificates(self, *options: str) -> str:
        """Run `python -m certs issue` and return what it printed."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "certs", "issue"),
                f"--kubeconfig={self._kubeconfig(CERTS)}",
                f"--write-to={self.certificates}",
                f"--webhook-host={_LOOPBACK}",
                f"--extender-host={_LOOPBACK}",
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StackError(f"certs issue: {done.stderr or done.stdout}")
        return done.stdout

    def start_webhook(self, options: Mapping[str, str | None] | None = None) -> None:
        """Start the webhook and return when it is ready.

        `options` are given beside those of the shipped manifest.
        """
        changes = self._serving("webhook") | {
            "--kubeconfig": str(self._kubeconfig(WEBHOOK)),
            # Nobody balances load here, so nobody has to be told to go elsewhere first.
            "--drain": "0",
            **(options or {}),
        }
        command = shipped.command_line(WEBHOOK, changes, variant=self.variant)
        self.cluster.processes.start("webhook", command)
        self._ready("webhook")

    def start_extender(self, options: Mapping[str, str | None] | None = None) -> None:
        """Start the extender and return when it leads and its ledger is complete.

        `options` are given beside those of the shipped manifest.
        """
        changes = self._serving("extender") | {
            "--kubeconfig": str(self._kubeconfig(EXTENDER)),
            "--drain": "0",
            **(options or {}),
        }
        self.cluster.processes.start("extender", shipped.command_line(EXTENDER, changes))
        self._ready("extender")

    def stop(self, *parts: str) -> None:
        """Stop `webhook`, `extender`, or `agent-NODE`."""
        self.cluster.processes.stop(*parts)

    def use_extender(self) -> None:
        """Restart kube-scheduler with the shipped configuration."""
        client = self.certificates / "scheduler-client"
        configuration = shipped.scheduler_configuration(self.extender_url, client=client)
        target = self.folder / "scheduler.json"
        write_atomically(target, json.dumps(configuration, indent=2).encode())
        self.cluster.restart_scheduler(target)

    def start_agent(
        self,
        node: str,
        driver_root: Path,
        *,
        kubelet: KubeletFolders | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Start the agent of `node`; without `kubelet` it has none, like a simulated node.

        `options` are given beside those of the shipped manifest.
        """
        nowhere = self.folder / "no-kubelet" / node
        folders = kubelet or KubeletFolders(
            root=nowhere, device_plugins=nowhere / "device-plugins", cdi=nowhere / "cdi"
        )
        # Kubernetes makes it itself, a moment after the namespace.
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{AGENT_ACCOUNT}"
        self.cluster.wait_for(account, bool)
        token = self.cluster.service_account_kubeconfig(NAMESPACE, AGENT_ACCOUNT, node=node)
        changes = {
            "--kubeconfig": str(token),
            "--node-name": node,
            # None is applied here, and agents come again.
            "--daemonset": "",
            "--driver-root": str(driver_root),
            "--dev-root": str(driver_root),
            "--host-root": "/",
            "--side-host": _LOOPBACK,
            "--side-port": "0",
            "--kubelet-dir": str(folders.root),
            "--device-plugin-dir": str(folders.device_plugins),
            "--cdi-dir": str(folders.cdi),
            # Nobody waits a minute here for a GPU that was lost.
            "--hold-down": "2",
            **(options or {}),
        }
        command = shipped.command_line(AGENT, changes)
        self.cluster.processes.start(f"agent-{node}", command, grace=10)

    def _serving(self, part: str) -> dict[str, str]:
        return {
            "--host": _LOOPBACK,
            "--port": str(self._ports[part]),
            "--side-host": _LOOPBACK,
            "--side-port": str(self._ports[f"{part}-side"]),
            "--tls-dir": str(self.certificates / part),
        }

    def _kubeconfig(self, account: str) -> Path:
        return self.cluster.service_account_kubeconfig(NAMESPACE, account)

    def _ready(self, part: str) -> None:
        url = f"{self.side_url(part)}/readyz"

        def ready() -> bool:
            self.cluster.processes.check(part)
            return answers(url)

        until(ready, timeout=_READY_TIMEOUT, what=f"{part} ready")


def answers(url: str) -> bool:
    """Tell whether a GET is answered with 200."""
    with urllib3.PoolManager(retries=False, timeout=2.0) as pool:
        try:
            return pool.request("GET", url).status == HTTPStatus.OK
        except urllib3.exceptions.HTTPError:
            return False
