"""The extender's application as the scheduler meets it, without a server around it."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from extender.app import create_app
from extender.binding.binder import Binder
from extender.filtering import Filter
from extender.metrics import Metrics
from extender.patience import Patience
from extender.placement.shortlist import Choice
from extender.placement.strategies import binpack
from extender.preempting.preemption import Preemption
from extender.waking.waiting import Waiting
from tests.builders import node, pod
from tests.extender.ledgers import Told
from tests.fakes.binding_api import BindingApi

NODES = ("a", "b")
SCHEDULER = "gpudetour-scheduler"


class Peer(ssl.SSLSocket):
    """The server's end of a connection whose client proved a name."""

    def __init__(self, name: str | None) -> None:
        near, self.far = socket.socketpair()
        super(ssl.SSLSocket, self).__init__(fileno=near.detach())
        self._name = name

    def getpeercert(self, binary_form: bool = False) -> Any:
        del binary_form
        return {"subject": ((("commonName", self._name),),)} if self._name else {}

    def end(self) -> None:
        self.far.close()
        socket.socket.close(self)


class Port:
    """The application, called as the scheduler calls it."""

    def __init__(self, api: BindingApi) -> None:
        self.told = Told(*(node(name).with_gpus(1).annotation_path() for name in NODES))
        self.registry = CollectorRegistry()
        self.fault: str | None = None
        self.peer = Peer(SCHEDULER)
        cluster = self.told.cluster
        metrics = Metrics(self.registry, snapshot=cluster.snapshot, epoch=lambda: 1)
        app = create_app(
            Filter(
                cluster,
                choice=Choice(rank=binpack, limit=16),
                hold_seconds=5,
                patience=Patience(0.1),
                waiting=Waiting(),
            ),
            Binder(api.client(), cluster, epoch=lambda: 1, metrics=metrics),
            Preemption(cluster, evicting=False),
            metrics=metrics,
            not_ready=lambda: self.fault,
            client_name=SCHEDULER,
        )
        self.client: FlaskClient = app.test_client()

    def post(self, verb: str, body: Any, *, peer: Peer | None = None) -> Any:
        """Return the decoded answer, which must be a 200."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        environ = {"gunicorn.socket": peer or self.peer}
        answer = self.client.post(f"/{verb}", data=data, environ_base=environ)
        assert (answer.status_code, answer.content_type) == (200, "application/json")
        return json.loads(answer.data)

    def failures(self, verb: str) -> float | None:
        name = "gpudetour_extender_failures_total"
        return self.registry.get_sample_value(name, {"verb": verb})


def args(*names: str) -> dict[str, Any]:
    """What kube-scheduler sends to filter and prioritize for pod `p`."""
    return {"Pod": pod("p").wants(gpus=1).raw(), "Nodes": None, "NodeNames": list(names)}


def binding(node_name: str) -> dict[str, str]:
    """What kube-scheduler sends to bind for pod `p`."""
    return {"PodName": "p", "PodNamespace": "default", "PodUID": "uid-p", "Node": node_name}
