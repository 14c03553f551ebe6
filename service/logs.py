"""Logs as one stream of records on stderr: JSON for clusters, readable lines for people.

Messages are constant, values travel as keys. Records of the standard library (gunicorn, urllib3,
grpc) come out alike. Loggers are got with `structlog.get_logger()`; nothing else belongs here.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: Key names that more than one component uses.
POD = "pod"
NODE = "node"
CONTAINER = "container"
GPUS = "gpus"
DEMAND = "demand"
EPOCH = "epoch"
REQUEST = "request"
REASON = "reason"
ERROR = "error"
SECONDS = "seconds"

LEVELS = ("debug", "info", "warning", "error")

#: Speak up on every connection at DEBUG, which hides what our own DEBUG lines say.
_CHATTY = ("urllib3", "hypothesis")


def configure(*, level: str, json: bool) -> None:
    """Send every record of this process to stderr; `level` is one of `LEVELS`."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Ours go straight to the stream: by way of the standard library each takes three times as long,
    # which is a good part of a request.
    structlog.configure(
        processors=[*shared, *(_JSON if json else _for_people())],
        logger_factory=(
            structlog.BytesLoggerFactory(sys.stderr.buffer)
            if json
            else structlog.WriteLoggerFactory(sys.stderr)
        ),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([*_JSON, _as_text] if json else _for_people()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.INFO))
    logging.captureWarnings(capture=True)


def _as_json(_logger: WrappedLogger, _method: str, record: EventDict) -> bytes:
    try:
        return _ENCODER.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # What is no text, or in no form that JSON has, is told all the same.
        return json.dumps(record, default=repr, skipkeys=True).encode()


def _as_text(_logger: WrappedLogger, _method: str, line: Any) -> Any:
    return line.decode()


def _for_people() -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


_ENCODER = msgspec.json.Encoder(enc_hook=repr)
#: Tracebacks are plain text, for people too: the richer ones print local variables, and those hold
#: tokens and keys.
_JSON: tuple[Processor, ...] = (structlog.processors.format_exc_info, _as_json)
