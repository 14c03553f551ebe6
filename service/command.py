"""What the command lines of all components have in common, and how their programs start.

Each component's `settings` puts its own options beside these; every option is also read from the
environment as `GPUDETOUR_<OPTION>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, TypeVar

import click
import structlog

from service import logs

ENV_PREFIX = "GPUDETOUR"

#: For `click.command`: every program reads its environment and shows its defaults in the same way.
CONTEXT: dict[str, Any] = {"auto_envvar_prefix": ENV_PREFIX, "show_default": True}

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

KUBECONFIG: tuple[Option, ...] = (
    click.option("--kubeconfig", default=None, help="Absent: the service account of the pod."),
)
HTTPS: tuple[Option, ...] = (
    click.option("--host", default="0.0.0.0", help="Address of the HTTPS port."),  # noqa: S104 - a pod's own
    click.option("--port", default=8443, help="HTTPS port; 0 takes a free one."),
    click.option("--threads", default=16, help="Requests served at the same time."),
)
SIDE_PORT: tuple[Option, ...] = (
    click.option("--side-host", default="0.0.0.0", help="Address of health and metrics."),  # noqa: S104
    click.option("--side-port", default=8080, help="Port of health and metrics; 0: a free one."),
)
LOGGING: tuple[Option, ...] = (
    click.option("--log-level", default="info", type=click.Choice(logs.LEVELS)),
    click.option("--log-format", default="json", type=click.Choice(("json", "console"))),
)

log = structlog.get_logger()


class _Loggable(Protocol):
    """Settings of a component: a dataclass that says how to log."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def log_level(self) -> str: ...

    @property
    def log_format(self) -> str: ...


_Settings = TypeVar("_Settings", bound=_Loggable)


def with_options(options: Sequence[Option]) -> Option:
    """Return a decorator that gives a click command these options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def launch(
    settings: Callable[[], _Settings],
    run: Callable[[_Settings], None],
    *,
    faults: tuple[type[Exception], ...],
) -> None:
    """Build the settings, say them in the log, and run; settings hold no secrets.

    ValueError (a setting that cannot be) and `faults` end the program with their text alone.
    """
    expected: tuple[type[Exception], ...] = (ValueError, *faults)
    try:
        chosen = settings()
        logs.configure(level=chosen.log_level, json=chosen.log_format == "json")
        log.info("starting", **asdict(chosen))
        run(chosen)
    except expected as error:
        raise click.ClickException(str(error)) from error
