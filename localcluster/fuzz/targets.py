"""The applications under test as they are put together in their processes, and what their answers
must be like.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol
from wsgiref.types import WSGIApplication

import jsonpatch
import msgspec
from prometheus_client import CollectorRegistry

from extender import app as extender_app
from extender.binding.binder import Binder
from extender.cluster import Cluster
from extender.filtering import Filter
from extender.metrics import Metrics as ExtenderMetrics
from extender.metrics import Verb
from extender.patience import Patience
from extender.placement.shortlist import Choice
from extender.placement.strategies import binpack
from extender.preempting.preemption import Preemption
from extender.waking.waiting import Waiting
from gpus.annotations import DEVICES_CONFIG_MAP_PREFIX
from gpus.model import Path
from kube.client import Client
from kube.connection import Connection
from kube.objects import Node, Pod
from kube.reflector import Event, EventKind
from kube.wire import convert
from localcluster.bench import fleet
from localcluster.fuzz import seeds
from localcluster.fuzz.mutations import Seeds, mutate
from service.http import limit_body
from webhook import __main__ as webhook_main
from webhook.app import create_app
from webhook.metrics import Metrics
from webhook.mutate import Mutator
from webhook.settings import Settings

_JSON = "application/json"
_SCHEDULER = "gpudetour-scheduler"
_MAX_BODY = 8 * 1024 * 1024
_USUAL = 0.98
"""Share of reviews that are sent as JSON."""
_DIGITS = 4000
"""What Python reads of a number, nearly."""
_TYPES = ("text/plain", "", "application/json; charset=utf-16", "application/yaml", "a/b;c=")
_CLASSES = {"nvidia": "nvidia", "nvidia-cdi": "nvidia-cdi", "gvisor": "runsc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: what there is to repeat it."""

    path: str
    body: bytes
    content_type: str = _JSON


@dataclass(frozen=True, slots=True)
class Got:
    """One answer."""

    status: int
    content_type: str
    body: bytes


class Wrong(Exception):
    """An answer that is not in order; the text says why."""


class Target(Protocol):
    """An application that can be asked."""

    def request(self, rng: Random) -> Sent:
        """Return a request, wrong or not."""

    def answered(self, sent: Sent) -> str:
        """Send it and return what kind of answer came; raises `Wrong`, or what the application let
        through.
        """

    def close(self) -> None:
        """Give back what it took."""


class WebhookTarget:
    """The webhook with the settings that it has by default, and every path open."""

    def __init__(self) -> None:
        context = webhook_main.main.make_context("webhook", ["--close-others"])
        mutator = Mutator(
            policy=Settings(**context.params).policy(),
            new_name=lambda: f"{DEVICES_CONFIG_MAP_PREFIX}{'f' * 20}",
            runtime_classes=lambda: _CLASSES,
        )
        app = create_app(mutator, metrics=Metrics(CollectorRegistry()), not_ready=lambda: None)
        self._app = limit_body(app, _MAX_BODY)
        self._seeds = seeds.reviews()

    def request(self, rng: Random) -> Sent:
        """Return a review for one of the two paths."""
        content_type = _JSON if rng.random() < _USUAL else rng.choice(_TYPES)
        path = "/mutate" if rng.random() < 0.7 else "/close"
        return Sent(path=path, body=mutate(rng, self._seeds), content_type=content_type)

    def answered(self, sent: Sent) -> str:
        """Send a review, and what was made of it once more: then nothing may change again."""
        got = call(self._app, sent)
        if got.status != 200:
            return _refused(got)
        response, pod = self._reviewed(sent, got)
        if not response["allowed"]:
            _check(bool(response["status"]["message"]), "a refusal without a reason")
            return "refused"
        if "patch" not in response:
            return "unchanged"
        review = _understood(sent.body)
        review["request"]["object"] = pod
        again = Sent(path=sent.path, body=json.dumps(review).encode())
        second, _ = self._reviewed(again, call(self._app, again))
        _check(second["allowed"] and "patch" not in second, "a second review changes it again")
        return "mutated"

    def close(self) -> None:
        """There is nothing to give back."""

    def _reviewed(self, sent: Sent, got: Got) -> tuple[Mapping[str, Any], Any]:
        """Check the form of an answer; return it and the object with its patch applied."""
        _check(got.content_type == _JSON, f"{got.status} of type {got.content_type}")
        answer, asked = msgspec.json.decode(got.body), _understood(sent.body)["request"]
        response: Mapping[str, Any] = answer["response"]
        _check(answer["kind"] == "AdmissionReview", "not a review")
        _check(response["uid"] == asked["uid"], "another uid")
        if "patch" not in response:
            return response, asked.get("object")
        operations = msgspec.json.decode(base64.b64decode(response["patch"], validate=True))
        _check(response["patchType"] == "JSONPatch" and operations != [], "an odd patch")
        return response, jsonpatch.apply_patch(asked["object"], operations, in_place=True)


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
        metrics = ExtenderMetrics(CollectorRegistry(), snapshot=cluster.snapshot, epoch=lambda: 1)
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
        self._app = limit_body(self._app, _MAX_BODY)
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
        _check((got.status, got.content_type) == (200, _JSON), f"{got.status} {got.content_type}")
        answer = msgspec.json.decode(got.body)
        error = answer.get("Error", "") if isinstance(answer, dict) else ""
        _check("internal error" not in error, error)
        verb = sent.path.strip("/")
        if error:
            return f"{verb}: error"
        if verb == Verb.FILTER.value:
            for name in answer.get("NodeNames") or ():
                _check(_names(sent.body, name), "a node that was not named")
        return f"{verb}: answered"

    def close(self) -> None:
        """End the connection."""
        self._peer.close()


TARGETS: Mapping[str, Callable[[], Target]] = {"webhook": WebhookTarget, "extender": ExtenderTarget}


def call(app: WSGIApplication, sent: Sent, *, peer: ssl.SSLSocket | None = None) -> Got:
    """Ask an application as gunicorn does."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": sent.path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": sent.content_type,
        "CONTENT_LENGTH": str(len(sent.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(sent.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "gunicorn.socket": peer,
    }
    told: list[Any] = []

    def start(status: str, headers: Any, _error: Any = None, /) -> Callable[[bytes], object]:
        told.append((status, headers))
        return lambda _written: None

    body = b"".join(app(environ, start))
    status, headers = told[-1]
    return Got(int(status[:3]), dict(headers).get("Content-Type", ""), body)


def _understood(body: bytes) -> Any:
    """Read a request that was taken: what nobody looks at in it may be no text at all."""
    return json.loads(body.decode(errors="replace"), parse_int=_number)


def _number(digits: str) -> int:
    return int(digits[:_DIGITS])


def _names(body: bytes, node: str) -> bool:
    """Tell whether a request names a node: anywhere, for the extender looks for it in the text, and
    reads the list only where that has escapes.
    """
    return b'"%b"' % node.encode() in body or node in _understood(body)["NodeNames"]


def _refused(got: Got) -> str:
    _check(400 <= got.status < 500, f"{got.status}: {got.body[:500].decode()}")
    _check(b"Traceback" not in got.body, "a traceback is shown")
    return str(got.status)


def _check(right: bool, text: str) -> None:
    if not right:
        raise Wrong(text)


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
