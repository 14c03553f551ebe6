"""etcd, kube-apiserver and kube-controller-manager on the loopback address, without root; starts
kube-scheduler too.

Their certificates, configuration and command lines, and when each counts as ready. What is done
with the cluster is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import urllib3

from localcluster.api import ApiClient, ApiError
from localcluster.etcd import compact
from localcluster.kubeconfig import write_kubeconfig
from localcluster.layout import Layout, Ports
from localcluster.pki import Authority, KeyPair
from localcluster.processes import Processes
from localcluster.scheduler import Scheduler, serving_arguments

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
"""The programs that this tier needs."""

Restartable = Literal["etcd", "kube-apiserver"]

_LOOPBACK = "127.0.0.1"
_READY_TIMEOUT = 90.0
_SERVICE_RANGE = "10.96.0.0/16"
_NODE_LIFECYCLE = ("node-lifecycle-controller", "taint-eviction-controller")
_SERVERS = ("127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneOptions:
    """How the control plane differs from the default one."""

    scheduler_config: Path | None = None
    """A KubeSchedulerConfiguration; the connection to the API server is filled in."""
    node_lifecycle: bool = True
    """False keeps nodes ready that send no heartbeats, and evicts nothing."""
    advertised: str | None = None
    """An address by which nodes and pods reach the API server: the endpoint of the Service
    `kubernetes`. It then serves on all addresses, so this is for a network namespace of its own.
    """
    apiserver_args: Sequence[str] = ()
    """Appended to kube-apiserver's command line."""
    audit_policy: Path | None = None
    """An audit Policy; events go to `audit.log` among the logs, one JSON object a line."""


class ControlPlane:
    """The control plane of one state folder."""

    def __init__(
        self, layout: Layout, *, ports: Ports, programs: Mapping[str, Path], processes: Processes
    ) -> None:
        self._layout = layout
        self._ports = ports
        self._programs = programs
        self._processes = processes
        self.authority = Authority(layout.pki)
        self.scheduler = Scheduler(
            layout, port=ports.scheduler, program=programs["kube-scheduler"], processes=processes
        )

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{_LOOPBACK}:{self._ports.apiserver}"

    def api(self) -> ApiClient:
        """A client with the administrator's rights."""
        admin = KeyPair(
            certificate=self._layout.pki / "admin.crt", key=self._layout.pki / "admin.key"
        )
        return ApiClient(self.server, ca_file=self.authority.certificate, credentials=admin)

    def kubelet_api(self, port: int) -> ApiClient:
        """A client for kubelet's own server, with the API server's identity."""
        pki = self._layout.pki
        pair = KeyPair(certificate=pki / "kubelet-client.crt", key=pki / "kubelet-client.key")
        server = f"https://{_LOOPBACK}:{port}"
        return ApiClient(server, ca_file=self.authority.certificate, credentials=pair)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), *, target: Path) -> Path:
        """Write a kubeconfig with a client certificate for `user` in `groups`."""
        pair = self.authority.issue(target.stem, common_name=user, organizations=groups)
        write_kubeconfig(
            target, server=self.server, ca_file=self.authority.certificate, credentials=pair
        )
        return target

    def start(self, options: ControlPlaneOptions) -> None:
        """Start all four and return when a pod could be created and scheduled."""
        self._create_identities()
        self._start_etcd()
        self._start_apiserver(options)
        api = self.api()
        wait_ready = self._processes.wait_ready
        try:
            wait_ready("kube-apiserver", lambda: _api_ready(api), timeout=_READY_TIMEOUT)
            self._start_controller_manager(options)
            self.scheduler.start(options.scheduler_config)
            # Created by the controller manager; pods are refused before.
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            wait_ready(
                "kube-controller-manager",
                lambda: _exists(api, account),
                timeout=_READY_TIMEOUT,
            )
        finally:
            api.close()

    def restart(self, part: Restartable, options: ControlPlaneOptions) -> None:
        """Kill etcd or kube-apiserver, start it again and return when the API server is ready.

        All data are kept. Give the options with which the control plane was started.
        """
        self._processes.stop(part)
        match part:
            case "etcd":
                self._start_etcd()
            case "kube-apiserver":
                self._start_apiserver(options)
        api = self.api()
        try:
            self._processes.wait_ready(part, lambda: _api_ready(api), timeout=_READY_TIMEOUT)
        finally:
            api.close()

    def compact(self) -> int:
        """Let etcd forget all revisions before the current one; returns that one."""
        pki = self._layout.pki
        return compact(
            f"https://{_LOOPBACK}:{self._ports.etcd}",
            ca_file=self.authority.certificate,
            credentials=KeyPair(certificate=pki / "etcd-client.crt", key=pki / "etcd-client.key"),
        )

    def _create_identities(self) -> None:
        self.authority.create()
        self.authority.create_signing_key("service-accounts")
        issue = self.authority.issue
        issue("etcd", common_name="etcd", hosts=_SERVERS[:1])
        issue("kube-apiserver", common_name="kube-apiserver", hosts=_SERVERS)
        issue("etcd-client", common_name="kube-apiserver")
        issue("kubelet-client", common_name="kube-apiserver", organizations=["system:masters"])
        for component in ("kube-controller-manager", "kube-scheduler"):
            issue(f"{component}-serving", common_name=component, hosts=_SERVERS[:1])
            self.kubeconfig_for(f"system:{component}", target=self._layout.kubeconfig(component))
        target = self._layout.admin_kubeconfig
        self.kubeconfig_for("admin", ["system:masters"], target=target)

    def _start_etcd(self) -> None:
        client = f"https://{_LOOPBACK}:{self._ports.etcd}"
        peer = f"https://{_LOOPBACK}:{self._ports.etcd_peer}"
        self._processes.start(
            "etcd",
            [
                self._programs["etcd"],
                f"--data-dir={self._layout.etcd}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                *(option for kind in ("", "peer-") for option in self._etcd_tls(kind)),
                # The data is thrown away with the cluster, so a crash of the machine costs nothing.
                "--unsafe-no-fsync",
            ],
            grace=0,
        )

    def _etcd_tls(self, kind: str) -> list[str]:
        return [
            f"--{kind}cert-file={self._layout.pki / 'etcd.crt'}",
            f"--{kind}key-file={self._layout.pki / 'etcd.key'}",
            f"--{kind}trusted-ca-file={self.authority.certificate}",
            f"--{kind}client-cert-auth",
        ]

    def _start_apiserver(self, options: ControlPlaneOptions) -> None:
        pki, ca = self._layout.pki, self.authority.certificate
        self._processes.start(
            "kube-apiserver",
            [
                self._programs["kube-apiserver"],
                f"--etcd-servers=https://{_LOOPBACK}:{self._ports.etcd}",
                f"--etcd-cafile={ca}",
                f"--etcd-certfile={pki / 'etcd-client.crt'}",
                f"--etcd-keyfile={pki / 'etcd-client.key'}",
                *_reached_by(options.advertised),
                f"--secure-port={self._ports.apiserver}",
                f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
                f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
                f"--client-ca-file={ca}",
                # Without it kube-scheduler's log fills with complaints about its absence.
                f"--requestheader-client-ca-file={ca}",
                f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
                f"--kubelet-client-key={pki / 'kubelet-client.key'}",
                f"--kubelet-certificate-authority={ca}",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki / 'service-accounts.pub'}",
                f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
                f"--service-cluster-ip-range={_SERVICE_RANGE}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                *self._audit(options.audit_policy),
                *options.apiserver_args,
            ],
            grace=0,
        )

    def _audit(self, policy: Path | None) -> list[str]:
        if policy is None:
            return []
        return [
            f"--audit-policy-file={policy.absolute()}",
            f"--audit-log-path={self._layout.logs / 'audit.log'}",
        ]

    def _start_controller_manager(self, options: ControlPlaneOptions) -> None:
        kubeconfig = self._layout.kubeconfig("kube-controller-manager")
        left_out = () if options.node_lifecycle else _NODE_LIFECYCLE
        self._processes.start(
            "kube-controller-manager",
            [
                self._programs["kube-controller-manager"],
                f"--kubeconfig={kubeconfig}",
                f"--secure-port={self._ports.controller_manager}",
                "--leader-elect=false",
                "--use-service-account-credentials",
                # The default of 20 requests a second makes its start take seconds longer.
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                f"--root-ca-file={self.authority.certificate}",
                f"--service-account-private-key-file={self._layout.pki / 'service-accounts.key'}",
                f"--controllers={','.join(['*', *(f'-{name}' for name in left_out)])}",
                *serving_arguments(self._layout, "kube-controller-manager"),
            ],
            grace=0,
        )


def _reached_by(address: str | None) -> list[str]:
    if address is None:
        # A loopback address is no valid endpoint of the `kubernetes` service.
        return [f"--bind-address={_LOOPBACK}", "--endpoint-reconciler-type=none"]
    return [f"--advertise-address={address}"]


def _api_ready(api: ApiClient) -> bool:
    try:
        return api.text("/readyz") == "ok"
    except (ApiError, urllib3.exceptions.HTTPError):
        return False


def _exists(api: ApiClient, path: str) -> bool:
    try:
        api.get(path)
    except ApiError:
        return False
    return True
