"""Starting, restarting and ending containerd and kubelet as the node `node1`."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import urllib3

from localcluster.api import ApiClient, ApiError, Object
from localcluster.controlplane import ControlPlane
from localcluster.files import write_atomically
from localcluster.layout import Layout
from localcluster.node.configuration import (
    NodeLayout,
    cni_conflist,
    containerd_toml,
    kube_proxy_configuration,
    kubelet_configuration,
)
from localcluster.node.enclosure import ADDRESS, Enclosure
from localcluster.node.machine import (
    DEVICE_PLUGINS,
    NodeError,
    check_machine,
    oom_score_is_restricted,
    record_host_paths,
    restore_host_paths,
    socket_answers,
)
from localcluster.node.sweep import end_containers, shim_sockets, sweep
from localcluster.processes import Processes
from localcluster.waiting import until

NAME = "node1"
PARTS = (
    "kubelet",
    "containerd",
    "ctr",
    "containerd-shim-runc-v2",
    "runc",
    "host-local",
    "loopback",
)
"""The programs that this tier needs beside those of the control plane."""

ENCLOSED_PARTS = (*PARTS, "kube-proxy", "ptp")
"""The programs of the node that has a pod network and Services."""

_LOOPBACK = "127.0.0.1"
_PATIENCE = 60.0
_LONGEST_SOCKET_PATH = 107
"""Bytes in sun_path of unix(7), without the closing zero."""


class RealNode:
    """The real node of one cluster. At most one can be on a machine."""

    name = NAME

    def __init__(
        self,
        layout: Layout,
        *,
        control_plane: ControlPlane,
        port: int,
        programs: Mapping[str, Path],
        processes: Processes,
    ) -> None:
        self._cluster = layout
        self._enclosure = Enclosure(layout, processes=processes)
        self._layout = NodeLayout(layout.node, enclosed=layout.enclosure.exists())
        self._address = ADDRESS if self._layout.enclosed else _LOOPBACK
        self._control_plane = control_plane
        self._port = port
        self._programs = programs
        self._processes = processes

    @property
    def root(self) -> Path:
        """The node's root folder, as this process reaches it."""
        return self._enclosure.root

    @property
    def containerd_socket(self) -> Path:
        """Where containerd serves the CRI and its own API."""
        return self._layout.containerd_socket

    @property
    def device_plugins(self) -> Path:
        """The folder of kubelet's device plugin sockets."""
        return self._seen(DEVICE_PLUGINS)

    @property
    def cdi(self) -> Path:
        """The folder in which containerd looks for CDI specs."""
        return self._seen(self._layout.cdi)

    @property
    def pod_resources_socket(self) -> Path:
        """kubelet's PodResources API."""
        return self._seen(self._layout.pod_resources_socket)

    def start(self, *, images: Sequence[Path], search_path: str, slot: int) -> None:
        """Start containerd with these image archives, then kubelet; return when the node is ready.

        `slot` is the machine's place for a real node, held until the last container has ended.
        """
        self._layout.folder.mkdir()
        record_host_paths(self._layout.host_paths)
        self._configure()
        self._start_containerd(search_path, slot)
        for archive in images:
            self.ctr("images", "import", str(archive))
        api = self._control_plane.api()
        try:
            self._create_object(api)
            self.start_kubelet()
            # Where the node lifecycle controller does not run, nobody else takes the taint away.
            api.patch(f"/api/v1/nodes/{NAME}", {"spec": {"taints": None}})
        finally:
            api.close()
        if self._layout.enclosed:
            self._configure_proxy()
            self._start_proxy()

    def start_kubelet(self) -> None:
        """Start kubelet and return when it has reported itself ready and takes device plugins."""
        api = self._control_plane.api()
        kubelet = self._control_plane.kubelet_api(self._port)
        try:
            before = _heartbeat(_node(api))
            if before is not None:
                # Heartbeats are told in whole seconds; the next one must be a different one.
                until(lambda: _now() > before + dt.timedelta(seconds=1), timeout=3, what="clock")
            self._processes.start(
                "kubelet",
                [
                    self._programs["kubelet"],
                    f"--config={self._layout.kubelet_config}",
                    f"--kubeconfig={self._cluster.kubeconfig('kubelet')}",
                    f"--root-dir={self._layout.kubelet_root}",
                    f"--cert-dir={self._layout.kubelet_root / 'pki'}",
                    f"--hostname-override={NAME}",
                    # Leaves the node's address to us: by itself kubelet refuses a loopback one.
                    "--cloud-provider=external",
                ],
            )

            def ready() -> bool:
                node = _node(api)
                return (
                    _is_ready(node)
                    and _heartbeat(node) != before
                    and socket_answers(self.device_plugins / "kubelet.sock")
                    and _knows_its_pods(kubelet, api)
                )

            self._processes.wait_ready("kubelet", ready, timeout=_PATIENCE)
        finally:
            api.close()
            kubelet.close()

    def stop_kubelet(self) -> None:
        """Stop kubelet; containers go on running."""
        self._processes.stop("kubelet")

    def restart_kubelet(self) -> None:
        """Stop and start kubelet and return when it has reported itself ready again."""
        self.stop_kubelet()
        self.start_kubelet()

    def reboot(self, *, search_path: str) -> None:
        """End everything that runs on the node, forget what a reboot forgets, start all again.

        Only for a node in an enclosure, where what lies below /run and in memory is its own.
        """
        self._processes.stop("kube-proxy", "kubelet", "containerd")
        end_containers(self._layout)
        self._enclosure.unmount(self._layout.containerd_state, self._layout.kubelet_root)
        for folder in (self._layout.containerd_state, self.cdi):
            shutil.rmtree(folder)
        self.cdi.mkdir()
        self._start_containerd(search_path, None)
        self.start_kubelet()
        self._start_proxy()

    def forget_devices(self) -> None:
        """Restart kubelet without its memory of device plugins and of who holds devices.

        For a node on which no pod holds any: kubelet otherwise remembers a plugin for five minutes
        after it stopped (pkg/kubelet/cm/devicemanager, endpoint.go).
        """
        self.stop_kubelet()
        (self.device_plugins / "kubelet_internal_checkpoint").unlink(missing_ok=True)
        self.start_kubelet()

    def ctr(self, *arguments: str) -> str:
        """What containerd's own client prints, in the namespace of Kubernetes."""
        address = ["--address", str(self.containerd_socket), "--namespace", "k8s.io"]
        outcome = subprocess.run(
            [str(self._programs["ctr"]), *address, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            raise NodeError(f"ctr {' '.join(arguments)}: {outcome.stderr.strip()}")
        return outcome.stdout

    def _configure(self) -> None:
        layout, pki = self._layout, self._cluster.pki
        for folder in (self.cdi, layout.cni_config, self._seen(layout.containerd_config).parent):
            folder.mkdir(exist_ok=True)
        authority = self._control_plane.authority
        hosts = sorted({self._address, _LOOPBACK})
        authority.issue("kubelet-serving", common_name=NAME, hosts=hosts)
        self._control_plane.kubeconfig_for(
            f"system:node:{NAME}", ["system:nodes"], target=self._cluster.kubeconfig("kubelet")
        )
        containerd = containerd_toml(
            layout,
            runc=self._programs["runc"],
            cni_plugins={
                self._programs[name].parent
                for name in ("host-local", "loopback", "ptp")
                if name in self._programs
            },
            restrict_oom_score=oom_score_is_restricted(),
        )
        kubelet = kubelet_configuration(layout, pki=pki, port=self._port)
        write_atomically(self._seen(layout.containerd_config), containerd.encode())
        write_atomically(layout.kubelet_config, kubelet.encode())
        write_atomically(
            layout.cni_config / "10-localcluster.conflist", cni_conflist(layout).encode()
        )

    def _start_containerd(self, search_path: str, slot: int | None) -> None:
        shim = self._programs["containerd-shim-runc-v2"]
        self._processes.start(
            "containerd",
            [self._programs["containerd"], "--config", self._layout.containerd_config],
            # It looks for its shim there.
            env={"PATH": os.pathsep.join([str(shim.parent), search_path])},
            inherited=slot,
        )
        self._processes.wait_ready(
            "containerd", lambda: socket_answers(self.containerd_socket), timeout=_PATIENCE
        )

    def _configure_proxy(self) -> None:
        kubeconfig = self._cluster.kubeconfig("kube-proxy")
        self._control_plane.kubeconfig_for("system:kube-proxy", target=kubeconfig)
        configuration = kube_proxy_configuration(kubeconfig=kubeconfig, node=NAME)
        write_atomically(self._layout.proxy_config, configuration.encode())

    def _start_proxy(self) -> None:
        self._processes.start(
            "kube-proxy",
            [self._programs["kube-proxy"], f"--config={self._layout.proxy_config}"],
            grace=0,
        )

    def _seen(self, path: Path) -> Path:
        """How this process reaches a path of the node that may lie in the enclosure."""
        if path.is_relative_to(self._cluster.state):
            return path
        return self._enclosure.inside(path)

    def _create_object(self, api: ApiClient) -> None:
        addresses = [
            {"type": "InternalIP", "address": self._address},
            {"type": "Hostname", "address": NAME},
        ]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NAME},
            "status": {"addresses": addresses},
        }
        api.create("/api/v1/nodes", node)


def check_place(layout: Layout) -> None:
    """Raise `NodeError` where the machine, or the path of the state folder, allows no real node."""
    check_machine()
    node = NodeLayout(layout.node)
    # containerd serves a second protocol beside its socket, under this name.
    ttrpc = node.containerd_socket.with_suffix(".sock.ttrpc")
    for path in (ttrpc, node.pod_resources_socket):
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise NodeError(f"{path} is too long for a socket; choose a shorter --state folder")


def remove_node(layout: Layout) -> None:
    """Take away what the processes of the node left on the machine; they must have ended."""
    node = NodeLayout(layout.node)
    if not node.folder.exists():
        return
    sockets = shim_sockets(node)
    sweep(node)
    restore_host_paths(node.host_paths, sockets=sockets, logs=node.pod_logs)


def _node(api: ApiClient) -> Object:
    try:
        return api.get(f"/api/v1/nodes/{NAME}")
    except ApiError:
        return {}


def _knows_its_pods(kubelet: ApiClient, api: ApiClient) -> bool:
    """Whether kubelet has learnt of every pod of its node; before, it knows no container either."""
    selector = f"spec.nodeName={NAME}"
    try:
        known = {pod["metadata"]["uid"] for pod in kubelet.get("/pods")["items"] or ()}
    except (ApiError, urllib3.exceptions.HTTPError):
        return False
    bound = api.get("/api/v1/pods", fieldSelector=selector)["items"]
    return known >= {pod["metadata"]["uid"] for pod in bound}


def _ready_condition(node: Object) -> Object:
    conditions = node.get("status", {}).get("conditions") or ()
    return next((dict(c) for c in conditions if c["type"] == "Ready"), {})


def _is_ready(node: Object) -> bool:
    return _ready_condition(node).get("status") == "True"


def _heartbeat(node: Object) -> dt.datetime | None:
    told = _ready_condition(node).get("lastHeartbeatTime")
    return None if told is None else dt.datetime.fromisoformat(told)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
