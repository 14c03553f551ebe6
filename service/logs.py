"""Logs as one stream of records on stderr: JSON for clusters, readable lines for people.

Messages are constant, values travel as keys. Records of the standard library (gunicorn, urllib3,
grpc) come out alike. Loggers are got with `structlog.get_logger()`; nothing else belongs here.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

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
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(json=json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.INFO))
    logging.captureWarnings(capture=True)


def _renderers(*, json: bool) -> list[Processor]:
    # Tracebacks are plain text in both forms: the richer ones print local variables, and those
    # hold tokens and keys.
    if json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]
