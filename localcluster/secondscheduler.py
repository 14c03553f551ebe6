"""A replica of the second scheduler: what would be one pod, with kube-scheduler and extender in it.

Both run on this machine with the pod's hostname, by which the extender knows its scheduler, and
with the rights of the pod's one service account.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from localcluster import shipped
from localcluster.files import write_atomically
from localcluster.ports import free_ports
from localcluster.stack import EXTENDER, NAMESPACE, Stack, answers
from localcluster.waiting import WaitedTooLong, until

_LOOPBACK = "127.0.0.1"
_GRACE = 10.0
# $0: hostname; then the program.
_NAME_THEN_RUN = 'printf %s "$0" > /proc/sys/kernel/hostname && exec "$@"'


class Replica:
    """One pod; `name` is its hostname. It ends with the cluster."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.name = name
        self._stack = stack
        self._processes = stack.cluster.processes
        self._port, self._side_port, self._scheduler_port = free_ports(3)
        account = stack.cluster.service_account_kubeconfig(NAMESPACE, EXTENDER)
        self._kubeconfig = str(account)

    @property
    def extender(self) -> str:
        """The extender's name among the cluster's processes."""
        return f"{self.name}-extender"

    @property
    def scheduler(self) -> str:
        """The name of kube-scheduler among the cluster's processes."""
        return f"{self.name}-kube-scheduler"

    @property
    def side_url(self) -> str:
        """Where the extender serves /healthz, /readyz and /metrics."""
        return f"http://{_LOOPBACK}:{self._side_port}"

    def start(self) -> None:
        """Start both, or what of them does not run."""
        if not self._processes.alive(self.extender):
            self.start_extender()
        if not self._processes.alive(self.scheduler):
            self.start_scheduler()

    def start_extender(self, options: Mapping[str, str] | None = None) -> None:
        """Start the extender; `options` are given beside those of the shipped manifest."""
        changes = {
            "--host": _LOOPBACK,
            "--port": str(self._port),
            "--side-host": _LOOPBACK,
            "--side-port": str(self._side_port),
            "--tls-dir": str(self._stack.certificates / "extender"),
            "--kubeconfig": self._kubeconfig,
            **(options or {}),
        }
        command = shipped.command_line(EXTENDER, changes, variant=self._stack.variant)
        self._processes.start(self.extender, _with_hostname(self.name, command))

    def start_scheduler(self) -> None:
        """Start kube-scheduler."""
        configuration = shipped.scheduler_configuration(
            f"https://{_LOOPBACK}:{self._port}",
            client=self._stack.certificates / "scheduler-client",
            variant=self._stack.variant,
        )
        configuration["clientConnection"]["kubeconfig"] = self._kubeconfig
        target = self._stack.folder / f"{self.name}.json"
        write_atomically(target, json.dumps(configuration, indent=2).encode())
        changes = {
            "--config": str(target),
            "--bind-address": _LOOPBACK,
            "--secure-port": str(self._scheduler_port),
            "--authentication-kubeconfig": self._kubeconfig,
            "--authorization-kubeconfig": self._kubeconfig,
        }
        program = self._stack.cluster.program("kube-scheduler")
        command = shipped.second_scheduler(program, changes)
        self._processes.start(self.scheduler, _with_hostname(self.name, command))

    def stop(self) -> None:
        """Ask both at once to end, as kubelet ends a pod, and return when they have."""
        for process in (self.scheduler, self.extender):
            if (pid := self._processes.pid(process)) is not None:
                os.kill(pid, signal.SIGTERM)
        # Asked twice, kube-scheduler would end without giving its Lease back.
        with suppress(WaitedTooLong):
            until(lambda: not self._runs(), timeout=_GRACE, what=f"the end of {self.name}")
        self._processes.stop(self.scheduler, self.extender)

    def signal(self, number: int) -> None:
        """Send a signal to all processes of both containers, as what befalls the node does."""
        self.signal_extender(number)
        _signal_group(self._processes.pid(self.scheduler), number)

    def signal_extender(self, number: int) -> None:
        """Send a signal to all processes of the extender's container."""
        _signal_group(self._processes.pid(self.extender), number)

    def kill_extender(self) -> None:
        """End the extender with no chance to say anything; returns when it is gone."""
        self.signal_extender(signal.SIGKILL)
        gone = f"the end of {self.extender}"
        until(lambda: not self._processes.alive(self.extender), timeout=_GRACE, what=gone)

    def serves(self) -> bool:
        """Tell whether the extender is ready: its scheduler leads, the ledger is complete."""
        return answers(f"{self.side_url}/readyz")

    def stands_by(self) -> bool:
        """Tell whether both have come up, so that the pod serves now or could take over."""
        return answers(f"{self.side_url}/healthz") and _is_listening(self._scheduler_port)

    def _runs(self) -> bool:
        return self._processes.alive(self.scheduler) or self._processes.alive(self.extender)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection((_LOOPBACK, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _signal_group(leader: int | None, number: int) -> None:
    if leader is not None:
        os.killpg(leader, number)


def _with_hostname(name: str, command: Sequence[str]) -> list[str]:
    """Return the command in a UTS namespace of its own, as the containers of a pod have one."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--uts", *as_root, "/bin/sh", "-c", _NAME_THEN_RUN, name, *command]
