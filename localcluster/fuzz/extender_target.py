"""The extender's application as it is put together in its process, and what it must answer."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
from collections.abc import Mapping
from random import Random
from typing import Any
from wsgiref.types import WSGIApplication

import msgspec
from prometheus_client import CollectorRegistry

from extender import app as extender_app
from extender.binding.binder import Binder
from extender.cluster import Cluster
from extender.filtering import Filter
from extender.metrics import Metrics, Verb
from extender.patience import Patience
from extender.placement.shortlist import Choice
from extender.placement.strategies import binpack
from extender.preempting.preemption import Preemption
from extender.waking.waiting import Waiting
from gpus.model import Path
from kube.client import Client
from kube.connection import Connection
from kube.objects import Node, Pod
from kube.reflector import Event, EventKind
from kube.wire import convert
from localcluster.bench import fleet
from localcluster.fuzz import seeds
from localcluster.fuzz.asking import JSON, MAX_BODY, Sent, call, check, understood
from localcluster.fuzz.mutations import Seeds, mutate
from service.http import limit_body

_SCHEDULER = "gpudetour-scheduler"


class ExtenderTarget:
    """The extender with nodes of both paths and pods that wait; its API server cannot be reached.

    What it does depends on what it was asked before, so a new one is made now and then.
    """

    def __init__(self) -> None:
        clock = itertools.count()
        cluster = Cluster(clock=lambda: next(clock) / 1000)
        for name, path in zip(seeds.NODES, itertools.cycle((Path.ANNOTATION, Path.PLUGIN))):
            node = convert(fleet.node(name, path=path), Node)
            cluster.on_node(Event(EventKind.ADDED, node))
        for pod in seeds.waiting_pods():
            cluster.on_pod(Event(EventKind.ADDED, convert(pod, Pod)))
        metrics = Metrics(CollectorRegistry(), snapshot=cluster.snapshot, epoch=lambda: 1)
        self._app: WSGIApplication = extender_app.create_app(
            Filter(
                cluster,
                choice=Choice(rank=binpack, limit=2),
                hold_seconds=5,
                patience=Patience(0.0),
                waiting=Waiting(),
            ),
            Binder(_unreachable(), cluster, epoch=lambda: 1, metrics=metrics),
            Preemption(cluster, evicting=True),
            metrics=metrics,
            not_ready=lambda: None,
            client_name=_SCHEDULER,
        )
        self._app = limit_body(self._app, MAX_BODY)
        self._peer = _Scheduler()
        names = seeds.extender_args()
        self._seeds: Mapping[Verb, Seeds] = {
            Verb.FILTER: names,
            Verb.PRIORITIZE: names,
            Verb.BIND: seeds.binding_args(),
            Verb.PREEMPT: seeds.preemption_args(),
        }

    def request(self, rng: Random) -> Sent:
        """Return what is nearly a request for one of the verbs."""
        verb = rng.choice(list(self._seeds))
        return Sent(path=f"/{verb.value}", body=mutate(rng, self._seeds[verb]))

    def answered(self, sent: Sent) -> str:
        """Send a request; every answer is a 200, and nodes are only of those that were named."""
        got = call(self._app, sent, peer=self._peer)
        if len(sent.body) > MAX_BODY:
            check(got.status == 413, f"{got.status} for {len(sent.body)} bytes")
            return "413"
        check((got.status, got.content_type) == (200, JSON), f"{got.status} {got.content_type}")
        answer = msgspec.json.decode(got.body)
        error = answer.get("Error", "") if isinstance(answer, dict) else ""
        check("internal error" not in error, error)
        verb = sent.path.strip("/")
        if error:
            return f"{verb}: error"
        if verb == Verb.FILTER.value:
            for name in answer.get("NodeNames") or ():
                check(_names(sent.body, name), "a node that was not named")
        return f"{verb}: answered"

    def close(self) -> None:
        """End the connection."""
        self._peer.close()


def _names(body: bytes, node: str) -> bool:
    """Tell whether a request names a node: anywhere, for the extender looks for it in the text, and
    reads the list only where that has escapes.
    """
    return b'"%b"' % node.encode() in body or node in understood(body)["NodeNames"]


def _unreachable() -> Client:
    """A client of an API server that takes no connections."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return Client(
        Connection(server=f"http://127.0.0.1:{port}", authorization=lambda: None), timeout=1.0
    )


class _Scheduler(ssl.SSLSocket):
    """A connection whose client has proven to be the scheduler."""

    def __init__(self) -> None:
        near, self._far = socket.socketpair()
        super(ssl.SSLSocket, self).__init__(fileno=near.detach())

    def getpeercert(self, binary_form: bool = False) -> Any:
        del binary_form
        return {"subject": ((("commonName", _SCHEDULER),),)}

    def close(self) -> None:
        self._far.close()
        socket.socket.close(self)
