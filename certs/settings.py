"""Settings of `certs` and their command line options; the only reader of its environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import click

from certs import names
from certs.rules import Rules
from service import command

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(value: str) -> timedelta:
    """Return what a number with one of the units s, m, h and d says, such as `30d`."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration such as 90s, 10m, 12h or 30d")
    return timedelta(**{_UNITS[found[2]]: float(found[1])})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What is wanted, however it is run."""

    namespace: str
    webhook_host: tuple[str, ...]
    extender_host: tuple[str, ...]
    webhook_configuration: str
    write_to: str | None
    ca_lifetime: timedelta
    server_lifetime: timedelta
    client_lifetime: timedelta
    propagation: timedelta
    kubeconfig: str | None

    def __post_init__(self) -> None:
        # Both raise ValueError.
        self.leaves()
        self.rules()

    def leaves(self) -> tuple[names.Leaf, ...]:
        """Return the certificates to keep issued; raises `CertificateError` for a bad host."""
        return names.leaves(
            self.namespace, webhook_hosts=self.webhook_host, extender_hosts=self.extender_host
        )

    def rules(self) -> Rules:
        """Return how long certificates are valid; raises ValueError."""
        return Rules(
            authority=self.ca_lifetime,
            server=self.server_lifetime,
            client=self.client_lifetime,
            propagation=self.propagation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueSettings(_Common):
    """Everything that can be chosen about one run."""

    force: bool
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(_Common):
    """Everything that can be chosen about the process that goes on."""

    every: timedelta
    side_host: str
    side_port: int
    log_level: str
    log_format: str

    def __post_init__(self) -> None:
        # Not super(): dataclasses with slots are made anew, and it would look for the first one.
        _Common.__post_init__(self)
        if not timedelta(0) < self.every <= self.propagation:
            raise ValueError("--every must be more than 0 and no more than --propagation")


_COMMON: tuple[command.Option, ...] = (
    click.option("--namespace", default=names.NAMESPACE, help="Where the Secrets are stored."),
    click.option(
        "--webhook-host",
        multiple=True,
        help="Further DNS name or IP address of the webhook; may be repeated.",
    ),
    click.option(
        "--extender-host",
        multiple=True,
        help="Further DNS name or IP address of the extender; may be repeated.",
    ),
    click.option(
        "--webhook-configuration",
        default=names.WEBHOOK_CONFIGURATION,
        help="MutatingWebhookConfiguration whose caBundle is filled.",
    ),
    click.option(
        "--write-to",
        default=None,
        type=click.Path(file_okay=False),
        help="Write {webhook,extender,scheduler-client}/{tls.crt,tls.key,ca.crt} below this too.",
    ),
    click.option(
        "--ca-lifetime",
        default="1825d",
        type=duration,
        help="For a new authority. Restart kube-scheduler once between 2/3 and 5/6 of it.",
    ),
    click.option(
        "--server-lifetime",
        default="30d",
        type=duration,
        help="For new certificates of webhook and extender.",
    ),
    click.option(
        "--client-lifetime",
        default="730d",
        type=duration,
        help="For new certificates of kube-scheduler, which may have to be copied by hand.",
    ),
    click.option(
        "--propagation",
        default="3m",
        type=duration,
        help="Time after which everybody has read a Secret or caBundle that was written.",
    ),
    *command.KUBECONFIG,
)

ISSUE_OPTIONS: tuple[command.Option, ...] = (
    *_COMMON,
    click.option("--force", is_flag=True, help="Renew all leaves, due or not."),
    click.option("-o", "--output", default="table", type=click.Choice(("table", "json"))),
)

RUN_OPTIONS: tuple[command.Option, ...] = (
    *_COMMON,
    click.option("--every", default="10s", type=duration, help="How often to look."),
    *command.SIDE_PORT,
    *command.LOGGING,
)
