"""What the proof needs, put together: a real control plane, replicas, front, auditor, load."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import urllib3

from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE
from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.files import write_atomically
from localcluster.front import Front
from localcluster.pki import Authority
from localcluster.ports import free_ports
from localcluster.simulated import NodeTemplate
from localcluster.stack import NAMESPACE as SYSTEM
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.builders import NodeBuilder, node
from tests.ha.auditor import Auditor
from tests.ha.books import Hardware
from tests.ha.interceptor import Interceptor
from tests.ha.load import Load
from tests.ha.replicas import Replica, service_account_token

NAMESPACE = "training"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/gpudetour-extender"

_SCHEDULER = "system:kube-scheduler"
_GPUS = 8
_ANNOTATION_NODES = tuple(f"annotation-{number}" for number in range(8))
_PLUGIN_NODES = tuple(f"plugin-{number}" for number in range(6))
_REPLICAS = ("extender-a", "extender-b", "extender-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster with three replicas; tests break it and give it back whole."""

    cluster: LocalCluster
    replicas: Sequence[Replica]
    front: Front
    auditor: Auditor
    load: Load
    folder: Path

    def whole(self) -> None:
        """Start what is missing; return when one replica serves and the front knows it."""
        for replica in self.replicas:
            replica.api.let_go()
            if not replica.running:
                replica.stop()  # removes what is left of the one that was killed
                replica.start()

        def settled() -> bool:
            # One that was asked to stop may end in this very moment.
            staying = [replica.name for replica in self.replicas if not replica.leaving]
            self.cluster.processes.check(*staying)
            serving = [replica.endpoint for replica in self.replicas if replica.serves]
            return len(serving) == 1 and self.front.ready == tuple(serving)

        until(settled, timeout=60, what="one replica serving")

    def leader(self) -> Replica:
        """The replica that serves; there must be exactly one."""

        def only() -> Replica | None:
            serving = [replica for replica in self.replicas if replica.serves]
            return serving[0] if len(serving) == 1 else None

        # One that has much to do may say so late.
        return until(only, timeout=20, what="one replica serving")

    def followers(self) -> list[Replica]:
        """All others."""
        leader = self.leader()
        return [replica for replica in self.replicas if replica is not leader]

    def epoch(self) -> int:
        """The epoch that the Lease names."""
        return int(self.cluster.api.get(LEASE)["spec"]["leaseTransitions"])

    def edit_lease(self, **spec: object) -> None:
        """Change the Lease by hand."""
        self.cluster.api.patch(LEASE, {"spec": spec})

    def bind_some(self, count: int, *, since: float | None = None, timeout: float = 60.0) -> float:
        """Wait until so many pods are bound after a moment, or from now on.

        Returns after how many seconds the first one was.
        """
        begin = time.monotonic() if since is None else since
        found: list[float] = []

        def done() -> bool:
            found[:] = self.auditor.bound_since(begin)
            return len(found) >= count

        self.auditor.wait(done, timeout=timeout, what=f"{count} binds")
        return found[0] - begin

    def longest_pause(self, since: float) -> float:
        """The most seconds in which nothing was bound, from a moment to the last bind."""
        moments = [since, *self.auditor.bound_since(since)]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def settle(self, *, timeout: float = 90.0) -> None:
        """Wait until every pod was bound and all were ended; `load` must not create any."""
        auditor, load = self.auditor, self.load
        until(
            lambda: not auditor.living() and all(auditor.knows(uid) for uid in load.created),
            timeout=timeout,
            what=f"pods bound and ended; waiting still: {auditor.waiting()[:5]}",
        )

    @contextmanager
    def second_scheduler(self) -> Iterator[str]:
        """Run another kube-scheduler for the same pods, neither asking who leads; gives its URL."""
        name, (port,) = "kube-scheduler-2", free_ports(1)
        pki, identity = self.cluster.state / "pki", self.cluster.kubeconfig_for(_SCHEDULER)
        configuration = json.loads((self.folder / "scheduler.json").read_text())
        configuration["clientConnection"]["kubeconfig"] = str(identity)
        file = self.folder / "scheduler-2.json"
        file.write_text(json.dumps(configuration))
        self.cluster.processes.start(
            name,
            [
                self.cluster.program("kube-scheduler"),
                f"--config={file}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--tls-cert-file={pki / 'kube-scheduler-serving.crt'}",
                f"--tls-private-key-file={pki / 'kube-scheduler-serving.key'}",
                f"--authentication-kubeconfig={identity}",
                f"--authorization-kubeconfig={identity}",
                "--authorization-always-allow-paths=/healthz,/metrics",
            ],
        )
        try:
            url = f"https://127.0.0.1:{port}"
            healthy, ca_file = f"{url}/healthz", self.cluster.ca_file
            self.cluster.processes.wait_ready(name, lambda: _answers(healthy, ca_file), timeout=60)
            yield url
        finally:
            self.cluster.processes.stop(name)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Build it all, with nothing created yet; take it down afterwards."""
    with ExitStack() as held:
        options = ControlPlaneOptions(node_lifecycle=False)
        cluster = held.enter_context(LocalCluster(folder / "cluster", options=options))
        stack = Stack(cluster)
        cluster.apply(shipped.cluster_objects())
        cluster.apply(shipped.admission(stack.webhook_url))
        stack.issue_certificates()
        stack.start_webhook()
        hardware = _create_nodes(cluster)
        replicas = _replicas(held, cluster, tls=stack.certificates / "extender", folder=folder)
        front = held.enter_context(Front([replica.endpoint for replica in replicas]))
        _use(cluster, front, client=stack.certificates / "scheduler-client", folder=folder)
        _create_namespace(cluster)
        auditor = held.enter_context(Auditor(cluster.admin_kubeconfig, NAMESPACE, hardware))
        load = held.enter_context(Load(cluster.api, auditor, NAMESPACE))
        yield Site(
            cluster=cluster,
            replicas=replicas,
            front=front,
            auditor=auditor,
            load=load,
            folder=folder,
        )
        cluster.processes.stop(*(replica.name for replica in replicas))


def _replicas(held: ExitStack, cluster: LocalCluster, *, tls: Path, folder: Path) -> list[Replica]:
    pki = folder / "interceptor"
    pki.mkdir()
    authority = Authority(pki)
    authority.create()
    identity = authority.issue("interceptor", common_name="interceptor", hosts=["127.0.0.1"])
    token = service_account_token(cluster)
    replicas = []
    for name in _REPLICAS:
        api = Interceptor(cluster.server, ca_file=cluster.ca_file, identity=identity)
        replica = Replica(name, cluster, tls=tls, api=held.enter_context(api), folder=folder)
        replica.identify(token, ca_file=authority.certificate)
        replicas.append(replica)
    return replicas


def _use(cluster: LocalCluster, front: Front, *, client: Path, folder: Path) -> None:
    url = f"https://127.0.0.1:{front.port}"
    file = folder / "scheduler.json"
    configuration = shipped.scheduler_configuration(url, client=client)
    write_atomically(file, json.dumps(configuration).encode())
    cluster.restart_scheduler(file)


def _create_namespace(cluster: LocalCluster) -> None:
    cluster.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    cluster.wait_for(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default", bool)


def _create_nodes(cluster: LocalCluster) -> Hardware:
    on_annotations = [node(name).with_gpus(_GPUS).annotation_path() for name in _ANNOTATION_NODES]
    on_plugin = [node(name).with_gpus(_GPUS).plugin_path() for name in _PLUGIN_NODES]
    for builder in (*on_annotations, *on_plugin):
        _create_node(cluster, builder)
    return Hardware(
        devices={b.name: frozenset(str(gpu.uuid) for gpu in b.gpus) for b in on_annotations},
        counts={b.name: len(b.gpus) for b in on_plugin},
    )


def _create_node(cluster: LocalCluster, builder: NodeBuilder) -> None:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", **builder.capacity}
    template = NodeTemplate(
        capacity=capacity,
        labels={GPU_LABEL: GPU_LABEL_VALUE},
        annotations=builder.annotations,
    )
    cluster.create_bare_nodes([builder.name], template)


def _answers(url: str, ca_file: Path) -> bool:
    with urllib3.PoolManager(retries=False, timeout=2.0, ca_certs=str(ca_file)) as pool:
        try:
            return pool.request("GET", url).status == HTTPStatus.OK
        except urllib3.exceptions.HTTPError:
            return False
