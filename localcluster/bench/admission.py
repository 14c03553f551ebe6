"""What admission costs: the webhook beside a bare view, and creates through a real API server.

One control plane with the shipped objects and the webhook alone. What is measured with the webhook
and what without take turns, so that whatever else happens on the machine hits both alike.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from gpus.annotations import GPU_LABEL
from kube.connection import connect
from localcluster import shipped
from localcluster.api import ApiError, Object
from localcluster.bench.admission_figures import Admission, Created, Memory, Served, Speed
from localcluster.bench.admission_load import Answered, Asking, ask_for, ask_times
from localcluster.bench.bulk import Call, send_all
from localcluster.bench.exposition import counter
from localcluster.bench.fleet import PODS, pod
from localcluster.bench.readings import fetched
from localcluster.bench.usage import usage_of
from localcluster.bench.wire import Wire, client_context, dial
from localcluster.cluster import LocalCluster
from localcluster.parts.progress import Progress
from localcluster.ports import free_ports
from localcluster.stack import Stack
from localcluster.waiting import until

CONNECTIONS = (1, 16, 64)

_BATCH = "admission"
_BARE, _WEBHOOK = "bare", "webhook"
_REQUESTS = "gpudetour_webhook_requests_total"
_AT_ONCE: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
_PATIENCE = 60.0
_LOADING = 8

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPlan:
    """How much is measured: seconds of each loop, pods of each batch, requests for the memory."""

    rounds: int
    seconds: float
    pods: int
    requests: int


FULL = AdmissionPlan(rounds=3, seconds=4.0, pods=300, requests=100_000)
QUICK = AdmissionPlan(rounds=2, seconds=1.0, pods=60, requests=10_000)


def measure_admission(plan: AdmissionPlan, *, progress: Progress) -> Admission:
    """Run everything. Raises `NotAdmitted` when a request is not answered as it should be."""
    with (
        progress.task("admission") as tell,
        TemporaryDirectory(prefix="bench-") as folder,
        LocalCluster(Path(folder) / "state") as cluster,
    ):
        tell("starting webhook and bare view")
        site = _Site(cluster)
        served = list(_serving(plan, site, tell))
        memory = _memory(plan, site, tell)
        created = list(_creating(plan, site, tell))
        return Admission(served=served, memory=memory, created=created)


class _Site:
    """A control plane on which nobody schedules, a webhook, and a bare view."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        cluster.stop_scheduler()
        cluster.wait_for("/api/v1/namespaces/default/serviceaccounts/default", lambda _: True)
        cluster.processes.stop("kube-controller-manager")
        self.stack = Stack(cluster)
        # As the API server fills it in before it asks, while nobody changes or refuses it.
        self._pod = cluster.api.create(f"{PODS}?dryRun=All", pod("asked-for", batch=_BATCH))
        cluster.apply(shipped.cluster_objects(self.stack.variant))
        self.admission = shipped.admission(self.stack.webhook_url)
        cluster.apply(self.admission)
        self.stack.issue_certificates()
        self.stack.start_webhook()
        (port,) = free_ports(1)
        self.bare_url = f"https://127.0.0.1:{port}"
        self._start_bare(port)
        tls = self.stack.certificates / "webhook"
        self._context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
        self._connection = connect(str(cluster.admin_kubeconfig))

    def _start_bare(self, port: int) -> None:
        command = [sys.executable, "-m", "localcluster.bench.admission_bare", f"--port={port}"]
        command.append(f"--tls-dir={self.stack.certificates / 'webhook'}")
        self.cluster.processes.start(_BARE, command)
        ready = self.cluster.processes.wait_ready
        ready(_BARE, lambda: _accepts(port), timeout=_PATIENCE)

    def asking(self, server: str) -> Asking:
        """Return what asks a server for the admission of a GPU pod."""
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": str(uuid.uuid4()),
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "default",
                "name": self._pod["metadata"]["name"],
                "operation": "CREATE",
                "object": self._pod,
                "dryRun": False,
            },
        }
        body = json.dumps(review).encode()
        return Asking(server=server, path="/mutate", body=body, context=self._context)

    def reviews(self) -> int:
        """Return how many reviews the webhook has answered."""
        text = fetched(f"{self.stack.side_url(_WEBHOOK)}/metrics")
        return int(sum(counter(text, _REQUESTS).values()))

    def admit(self, wanted: bool) -> None:
        """Let the API server ask the webhook, or not; returns when it does so."""
        if wanted:
            self.cluster.apply(self.admission)
            # The authority that the Job wrote there went with the object.
            self.stack.issue_certificates()
        else:
            items = {"apiVersion": "v1", "kind": "List", "items": self.admission}
            options = ("--ignore-not-found", "--filename=-")
            self.cluster.kubectl("delete", *options, stdin=json.dumps(items))
        until(lambda: self._is_admitted() is wanted, timeout=_PATIENCE, what="admission changed")

    def _is_admitted(self) -> bool | None:
        try:
            made = self.cluster.api.create(f"{PODS}?dryRun=All", pod("probe", batch=_BATCH))
        except ApiError:  # in between, one object is seen and the other is not
            return None
        return GPU_LABEL in made["metadata"]["labels"]

    def dial(self) -> Wire:
        """Connect to the API server as its admin."""
        connection = self._connection
        context = client_context(
            ca_file=connection.ca_file,
            cert_file=connection.client_cert_file or "",
            key_file=connection.client_key_file or "",
        )
        return dial(connection.server, context)

    def send(self, calls: Iterator[Call]) -> None:
        """Send requests to the API server on several connections."""
        send_all(calls, kubeconfig=self.cluster.admin_kubeconfig)

    def clear(self) -> None:
        """Delete all pods."""
        self.send(iter([Call(f"DELETE {PODS}", _AT_ONCE)]))


def _serving(plan: AdmissionPlan, site: _Site, tell: Tell) -> Iterator[Served]:
    for number in range(plan.rounds):
        for connections in CONNECTIONS:
            tell(f"{connections} connections, round {number + 1}")
            servers = [(_WEBHOOK, site.stack.webhook_url), (_BARE, site.bare_url)]
            found: dict[str, Speed] = {}
            # There and back, so that nobody always comes after the same other.
            for name, url in servers[:: 1 if number % 2 == 0 else -1]:
                used = usage_of(site.cluster.processes)[name].cpu
                loop = ask_for(site.asking(url), connections=connections, seconds=plan.seconds)
                used = usage_of(site.cluster.processes)[name].cpu - used
                found[name] = replace(_speed(loop), cpu=used / len(loop.latencies))
            yield Served(connections=connections, webhook=found[_WEBHOOK], bare=found[_BARE])


def _memory(plan: AdmissionPlan, site: _Site, tell: Tell) -> Memory:
    asking, done = site.asking(site.stack.webhook_url), site.reviews()
    after = {}
    for share in (0.1, 0.9):
        tell(f"{share * plan.requests:,.0f} requests for the memory")
        ask_times(asking, connections=_LOADING, times=int(share * plan.requests))
        after[site.reviews() - done] = usage_of(site.cluster.processes)[_WEBHOOK].memory
    return Memory(after=after)


def _creating(plan: AdmissionPlan, site: _Site, tell: Tell) -> Iterator[Created]:
    for number in range(plan.rounds):
        for admitted in (True, False) if number % 2 == 0 else (False, True):
            tell(f"pods {'with' if admitted else 'without'} the webhook, round {number + 1}")
            site.admit(admitted)
            yield _batch(plan, site, admitted=admitted)
            site.clear()


def _batch(plan: AdmissionPlan, site: _Site, *, admitted: bool) -> Created:
    before = site.reviews()
    plain = _one_by_one(site, [_plain(f"plain-{n}") for n in range(plan.pods)])
    reviewed = site.reviews() - before
    gpu = _one_by_one(site, [pod(f"gpu-{n}", batch=_BATCH) for n in range(plan.pods)])
    calls = (Call(f"POST {PODS}", pod(f"many-{n}", batch=_BATCH)) for n in range(plan.pods))
    began = perf_counter()
    site.send(calls)
    return Created(
        admitted=admitted,
        gpu=gpu,
        plain=plain,
        at_once=plan.pods / (perf_counter() - began),
        reviews_of_plain=reviewed,
    )


def _one_by_one(site: _Site, pods: list[Object]) -> Speed:
    bodies = [json.dumps(each).encode() for each in pods]
    latencies = []
    wire = site.dial()
    try:
        began = perf_counter()
        for body in bodies:
            asked = perf_counter()
            status, answer = wire.ask(f"POST {PODS}", body)
            if status >= 300:
                raise ApiError(status, "", answer[:500].decode(errors="replace"))
            latencies.append(perf_counter() - asked)
        seconds = perf_counter() - began
    finally:
        wire.close()
    return _speed(Answered(latencies=sorted(latencies), seconds=seconds))


def _plain(name: str) -> Object:
    found = pod(name, batch=_BATCH)
    del found["spec"]["containers"][0]["resources"]
    return found


def _speed(answered: Answered) -> Speed:
    return Speed(rate=answered.rate, p50=answered.quantile(0.5), p99=answered.quantile(0.99))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
