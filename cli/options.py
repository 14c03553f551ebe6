"""The options that commands share, named and meant as kubectl's, and the cluster that they name.

Options of the connection may stand before or behind the command; the one behind wins.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kube.client import Client
    from kube.connection import Connection

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds for one call where the user sets no other; a page of a long list takes a fraction.
DEFAULT_TIMEOUT = 10.0
#: Seconds, for `--request-timeout 0`: no limit, as kubectl has it.
_NO_LIMIT = 365 * 86400.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Duration(click.ParamType[float]):
    """A length of time such as `30s`, `5m`, `24h` or `7d`; seconds where no unit is given."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        parts = re.findall(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])", value)
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            self.fail(f"{value!r} is no length of time; write 30s, 5m, 24h or 7d", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was said about the cluster; None is what was not said."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    all_namespaces: bool | None = None
    request_timeout: float | None = None


class Target:
    """The cluster, and the part of it, that a command is about."""

    def __init__(self, outer: Given, inner: Given) -> None:
        """Take what stands behind the command, and else what stands before it."""
        self._context = inner.context or outer.context
        self._kubeconfig = inner.kubeconfig or outer.kubeconfig
        timeout = outer.request_timeout if inner.request_timeout is None else inner.request_timeout
        self.request_timeout = DEFAULT_TIMEOUT if timeout is None else timeout or _NO_LIMIT
        #: The namespace that was named; None where none was, or all are meant.
        self.named_namespace = inner.namespace or outer.namespace
        self.all_namespaces = bool(inner.all_namespaces or outer.all_namespaces)
        if self.all_namespaces:
            self.named_namespace = None

    @cached_property
    def connection(self) -> Connection:
        """Where the API server is; raises `NoConnection`."""
        from kube.connection import connect

        return connect(self._kubeconfig, context=self._context)

    @property
    def namespace(self) -> str | None:
        """The namespace to look into: the named one, else the context's; None stands for all."""
        if self.all_namespaces:
            return None
        return self.named_namespace or self.connection.namespace

    def client(self) -> Client:
        """Return a new client for the cluster; raises `NoConnection`."""
        from kube.client import Client

        return Client(self.connection, timeout=self.request_timeout)


def completing(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Complete a word with the names of objects of the cluster, such as `nodes`."""

    def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from cli.completion import named

        del param
        return named(ctx, kind, incomplete)

    return names


_CONNECTION = (
    click.option("--kubeconfig", metavar="FILE", help="Kubeconfig file; default as kubectl's."),
    click.option("--context", metavar="NAME", help="Context of the kubeconfig to use."),
    click.option(
        "--request-timeout",
        type=Duration(),
        help="Patience with each call, such as 30s; 0 for no end.  [default: 10s]",
    ),
)
_NAMESPACE = (
    click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        shell_complete=completing("namespaces"),
        help="Namespace to look into; default is that of the context.",
    ),
    click.option(
        "-A", "--all-namespaces", is_flag=True, default=None, help="Look into all namespaces."
    ),
)


def group_options(function: F) -> F:
    """Let the options of the connection and of the namespace stand before the command."""
    return _decorated(function, (*_CONNECTION, *_NAMESPACE))


def targeted(*, namespaced: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command those options too; it is called with the `Target` as `target`.

    A command that is not `namespaced` has no -n and -A of its own.
    """
    options = (*_CONNECTION, *_NAMESPACE) if namespaced else _CONNECTION
    names = ("kubeconfig", "context", "request_timeout", "namespace", "all_namespaces")

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**arguments: Any) -> None:
            inner = Given(**{key: arguments.pop(key) for key in names if key in arguments})
            function(target=target_of(click.get_current_context(), inner), **arguments)

        return _decorated(command, options)

    return decorate


def target_of(context: click.Context, inner: Given) -> Target:
    """Return the target of a command with what was said before it, in any context above."""
    outer = context.find_object(Given)
    return Target(outer or Given(), inner)


def listing(*extra: str) -> Callable[[F], F]:
    """Give a command -o and --no-headers: `output` is json, yaml, wide, name, or None for people.

    `extra` names more formats that only this command has.
    """
    formats = ("wide", "json", "yaml", "name", *extra)
    options = (
        click.option("-o", "--output", type=click.Choice(formats), help="Format of the output."),
        click.option("--no-headers", is_flag=True, help="Print rows only."),
    )
    return lambda function: _decorated(function, options)


def watching(function: F) -> F:
    """Give a command -w: `watch` tells whether to go on with what changes."""
    option = click.option("-w", "--watch", is_flag=True, help="Go on: print rows that change.")
    return _decorated(function, (option,))


def _decorated(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        function = option(function)
    return function
