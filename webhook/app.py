"""The Flask application: reads a review, asks the mutator, answers. Decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from service.logs import POD, REASON, REQUEST
from webhook import review
from webhook.metrics import Metrics, Result
from webhook.mutate import Mutator, Refused

NotReady = Callable[[], str | None]

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_POD_KIND = "v1/Pod"

log = structlog.get_logger()


def create_app(mutator: Mutator, *, metrics: Metrics, not_ready: NotReady) -> Flask:
    """Return the application, which answers `POST /mutate` and nothing else.

    While `not_ready` returns a reason, requests are answered 503 with that reason.
    """
    app = Flask("gpudetour-webhook", static_folder=None)

    @app.post("/mutate")
    def mutate() -> Response:
        with metrics.duration.time():
            result, response = _answer(mutator, not_ready)
        metrics.count(result)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        metrics.count(Result.BAD_REQUEST)
        return _text(error.description or error.name, status=error.code or 500)

    @app.errorhandler(Exception)
    def failure(error: Exception) -> Response:
        metrics.count(Result.ERROR)
        log.error("request failed", exc_info=error)
        return _text("internal error of the gpudetour webhook, see its log", status=500)

    return app


def _answer(mutator: Mutator, not_ready: NotReady) -> tuple[Result, Response]:
    if (reason := not_ready()) is not None:
        return Result.NOT_READY, _text(f"not ready: {reason}", status=503)
    if request.mimetype != _JSON or request.content_encoding:
        return Result.BAD_REQUEST, _text(f"send plain {_JSON}", status=415)
    try:
        asked = review.decode(request.get_data(cache=False))
    except review.BadReview as error:
        log.warning("not an admission review", **{REASON: str(error)})
        return Result.BAD_REQUEST, _text(str(error), status=400)
    try:
        result, body = _judge(mutator, asked)
    except RecursionError:
        result, body = Result.REFUSED, review.deny(asked, "the pod is nested too deeply")
    return result, Response(body, content_type=_JSON)


def _judge(mutator: Mutator, asked: review.Request) -> tuple[Result, bytes]:
    if asked.kind != _POD_KIND:
        return Result.REFUSED, review.deny(asked, f"{asked.kind} is not a pod: check the rules")
    if asked.operation != "CREATE" or asked.subresource:
        # Denying updates could keep pods from being deleted; a wrong rule must not do that.
        text = f"gpudetour ignores {asked.operation} of pods: check the webhook's rules"
        return Result.UNCHANGED, review.allow(asked, warnings=(text,))
    if asked.object is None:
        return Result.REFUSED, review.deny(asked, "request.object is missing")
    outcome = mutator.mutate(asked.object)
    keys = {POD: _pod_name(asked), REQUEST: asked.uid}
    if isinstance(outcome, Refused):
        log.info("pod refused", **keys, **{REASON: outcome.faults})
        return Result.REFUSED, review.deny(asked, "; ".join(outcome.faults))
    body = review.allow(asked, outcome.pod, warnings=outcome.warnings)
    if outcome.pod == asked.object:
        return Result.UNCHANGED, body
    log.info("pod mutated", **keys, dry_run=asked.dry_run, warnings=outcome.warnings)
    return Result.MUTATED, body


def _pod_name(asked: review.Request) -> str:
    metadata = (asked.object or {}).get("metadata") or {}
    name = asked.name or metadata.get("name") or metadata.get("generateName") or ""
    return f"{asked.namespace}/{name}"


def _text(text: str, *, status: int) -> Response:
    return Response(f"{text}\n", status=status, content_type=_TEXT)
