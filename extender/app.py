"""The Flask application: decode, ask, encode. Decides nothing itself.

Every answer to the scheduler is a 200: of any other it shows the status code alone, and the text
that says what to do would be lost (kube-scheduler pkg/scheduler/extender.go, `send`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import structlog
from flask import Flask, Response, request

from extender import protocol
from extender.binding.binder import Binder, BindError
from extender.filtering import Filter
from extender.metrics import Metrics, Verb
from extender.placement.facts import PodFacts, read_pod
from extender.preempting.preemption import Preemption
from extender.protocol import (
    ExtenderBindingResult,
    ExtenderFilterResult,
    ExtenderPreemptionResult,
    Failure,
    HostPriority,
    ProtocolError,
)
from gpus.model import NodeName
from kube.objects import Pod
from service.logs import ERROR, POD
from service.tls import peer_common_name

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"

Answer = Callable[[bytes], Any]
NotReady = Callable[[], str | None]

log = structlog.get_logger()


class BadPod(Exception):
    """What the pod asks for cannot be granted anywhere."""


def create_app(
    placer: Filter,
    binder: Binder,
    preemption: Preemption,
    *,
    metrics: Metrics,
    not_ready: NotReady,
    client_name: str,
) -> Flask:
    """Return the application, which answers POST of `/filter` and the other verbs.

    Only a client whose certificate bears `client_name` may call: whoever can bind decides who
    gets which GPU. While `not_ready` returns a reason, every verb answers with that.
    """
    app = Flask("gpudetour-extender", static_folder=None)

    @app.before_request
    def only_the_scheduler() -> Response | None:
        if peer_common_name(request.environ) == client_name:
            return None
        text = f"only a client certificate with the common name {client_name} may call\n"
        return Response(text, status=403, content_type=_TEXT)

    verbs: dict[Verb, Answer] = {
        Verb.FILTER: lambda body: _filter(placer, preemption, metrics, body),
        Verb.PRIORITIZE: lambda body: _prioritize(placer, body),
        Verb.BIND: lambda body: _bind(binder, body),
        Verb.PREEMPT: lambda body: _preempt(preemption, body),
    }
    for verb, answer in verbs.items():
        view = _view(verb, answer, metrics=metrics, not_ready=not_ready)
        app.add_url_rule(f"/{verb.value}", verb.value, view, methods=["POST"])
    return app


def _view(
    verb: Verb, answer: Answer, *, metrics: Metrics, not_ready: NotReady
) -> Callable[[], Response]:
    def view() -> Response:
        with metrics.duration[verb].time():
            try:
                reason = not_ready()
                if reason is None:
                    return _json(answer(request.get_data(cache=False)))
                _end_connection(request.environ)
                text = f"gpudetour's extender does not serve: {reason}"
            except (ProtocolError, BadPod, BindError) as error:
                text = str(error)
            except Exception:
                log.exception("request failed", verb=verb.value)
                text = "internal error of gpudetour's extender, see its log"
            metrics.failures[verb].inc()
            log.debug("answered with an error", verb=verb.value, **{ERROR: text})
            return _json(Failure(error=text))

    return view


def _filter(
    placer: Filter, preemption: Preemption, metrics: Metrics, body: bytes
) -> ExtenderFilterResult:
    pod, names = protocol.decode_args(body)
    facts = _facts(pod)
    nominated = _nominated(pod)
    decision = placer.filter(facts, names)
    metrics.decided(decision)
    preemption.filtered(facts, decision, nominated=nominated)
    log.debug("filtered", **{POD: facts.key}, nodes=decision.nodes)
    # "Unresolvable" means that kube-scheduler cannot help by evicting others, and it cannot: it
    # does not see GPUs. Else it would try at every node, inside its one loop, and list them all in
    # the pod's status. Only where its victims are leaving it must learn that waiting helps.
    unresolvable = {**decision.unfit, **decision.busy}
    awaited = {}
    if nominated in decision.busy and preemption.awaited(nominated):
        awaited = {nominated: unresolvable.pop(nominated)}
    return ExtenderFilterResult(
        node_names=decision.nodes,
        failed_nodes=awaited,
        failed_and_unresolvable_nodes=unresolvable,
    )


def _prioritize(placer: Filter, body: bytes) -> list[HostPriority]:
    pod, names = protocol.decode_args(body)
    scores = placer.prioritize(_facts(pod), names)
    return [HostPriority(host=name, score=score) for name, score in scores.items()]


def _bind(binder: Binder, body: bytes) -> ExtenderBindingResult:
    binder.bind(protocol.decode_binding_args(body))
    return ExtenderBindingResult()


def _preempt(preemption: Preemption, body: bytes) -> ExtenderPreemptionResult:
    pod, victims = protocol.decode_preemption_args(body)
    facts = _facts(pod)
    leaving = {name: frozenset(p.uid for p in one.pods or ()) for name, one in victims.items()}
    allowed = preemption.vetted(facts, leaving, nominated=_nominated(pod))
    log.debug("vetted", **{POD: facts.key}, asked=list(leaving), nodes=allowed)
    return ExtenderPreemptionResult(
        node_name_to_meta_victims={name: victims[name] for name in allowed}
    )


def _facts(pod: Pod) -> PodFacts:
    facts = read_pod(pod)
    if facts.fault:
        raise BadPod(facts.fault)
    return facts


def _nominated(pod: Pod) -> NodeName:
    return NodeName(pod.status.nominated_node_name)


def _json(answer: object) -> Response:
    return Response(protocol.encode(answer), content_type=_JSON)


def _end_connection(environ: dict[str, Any]) -> None:
    """Let the server close the connection after this answer.

    The scheduler keeps connections alive; the next request must go to whoever leads then. WSGI has
    no way to say "Connection: close", so the server is made to read the end of the stream.
    """
    sock = environ.get("gunicorn.socket")
    if isinstance(sock, socket.socket):
        # Not SSLSocket.shutdown: it drops the TLS state, and the answer would go out in the clear.
        socket.socket.shutdown(sock, socket.SHUT_RD)
