"""The Flask application: reads a review, asks the mutator, answers. Decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from wsgiref.types import WSGIEnvironment

import structlog
from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException

from service.logs import REASON
from webhook import review
from webhook.judge import judge
from webhook.metrics import Metrics, Result
from webhook.mutate import Mutator

NotReady = Callable[[], str | None]

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"

log = structlog.get_logger()


def create_app(mutator: Mutator, *, metrics: Metrics, not_ready: NotReady) -> Flask:
    """Return the application, which answers `POST /mutate`, and `/close` where that is wanted.

    While `not_ready` returns a reason, requests are answered 503 with that reason.
    """
    app = Flask("gpudetour-webhook", static_folder=None)

    def counted(*, others: bool) -> Response:
        began = perf_counter()
        result, response = _answer(mutator, not_ready, others=others)
        metrics.duration.observe(perf_counter() - began)
        metrics.count(result)
        return response

    @app.post("/mutate")
    def mutate() -> Response:
        return counted(others=False)

    @app.post("/close")
    def close() -> Response:
        if not mutator.policy.close_others:
            abort(404, "this webhook was started without --close-others")
        return counted(others=True)

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


def _answer(mutator: Mutator, not_ready: NotReady, *, others: bool) -> tuple[Result, Response]:
    if (reason := not_ready()) is not None:
        return Result.NOT_READY, _text(f"not ready: {reason}", status=503)
    # Flask's own views of a request took as long as the mutation of a pod.
    environ: WSGIEnvironment = request.environ
    kind, _, _ = environ.get("CONTENT_TYPE", "").partition(";")
    if kind.strip().lower() != _JSON or environ.get("HTTP_CONTENT_ENCODING"):
        return Result.BAD_REQUEST, _text(f"send plain {_JSON}", status=415)
    try:
        asked = review.decode(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    except review.BadReview as error:
        log.warning("not an admission review", **{REASON: str(error)})
        return Result.BAD_REQUEST, _text(str(error), status=400)
    result, body = judge(mutator, asked, others=others)
    return result, Response(body, content_type=_JSON)


def _text(text: str, *, status: int) -> Response:
    return Response(f"{text}\n", status=status, content_type=_TEXT)
