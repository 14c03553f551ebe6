"""Settings of `certs issue` and their command line options; the only reader of its environment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import click

from certs import names
from certs.issue import Lifetimes
from service import command


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen about one run; lifetimes in days."""

    namespace: str
    webhook_host: tuple[str, ...]
    extender_host: tuple[str, ...]
    webhook_configuration: str
    write_to: str | None
    ca_days: int
    leaf_days: int
    force: bool
    kubeconfig: str | None
    output: str

    def leaves(self) -> tuple[names.Leaf, ...]:
        """Return the certificates to keep issued; raises `CertificateError` for a bad host."""
        return names.leaves(
            self.namespace, webhook_hosts=self.webhook_host, extender_hosts=self.extender_host
        )

    def lifetimes(self) -> Lifetimes:
        """Return how long new certificates are valid."""
        return Lifetimes(
            authority=timedelta(days=self.ca_days), leaf=timedelta(days=self.leaf_days)
        )


OPTIONS: tuple[command.Option, ...] = (
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
    click.option("--ca-days", default=365, type=click.IntRange(min=1), help="For a new authority."),
    click.option("--leaf-days", default=30, type=click.IntRange(min=1), help="For new leaves."),
    click.option("--force", is_flag=True, help="Renew all leaves, due or not."),
    *command.KUBECONFIG,
    click.option("-o", "--output", default="table", type=click.Choice(("table", "json"))),
)
