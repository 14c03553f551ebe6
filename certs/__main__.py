"""`python -m certs issue`: one command that leaves every certificate in place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from certs import files, names
from certs.authority import CertificateError
from certs.issue import Issued, Outcome, carry_out
from certs.plan import make_plan
from certs.settings import OPTIONS, Settings
from certs.store import CaBundle, Store
from kube.client import Client
from kube.connection import connect
from kube.errors import Conflict, KubeError, NotFound
from service.command import CONTEXT, with_options

#: Exit code when all certificates are in place but no webhook configuration to trust them.
NO_CONFIGURATION = 3

#: Columns that the table needs.
_MIN_WIDTH = 100

#: Runs that meet another run begin again this often; each round the other one got further.
_ATTEMPTS = 5


@click.group()
def main() -> None:
    """Make and keep the certificates of the webhook, the extender and the scheduler."""


@main.command(context_settings=CONTEXT)
@with_options(OPTIONS)
def issue(**values: Any) -> None:
    """Issue what is missing, due or unusable, and keep the rest.

    Stores Secrets, fills the caBundle of the webhook configuration, and writes files if asked.
    A second run changes nothing. Exit code 3: all is stored, but the webhook configuration does
    not exist yet; create it and run again.
    """
    try:
        settings = Settings(**values)
        store = Store(Client(connect(settings.kubeconfig)), namespace=settings.namespace)
        issued, bundle = run(store, settings, now=datetime.now(UTC))
    except (ValueError, KubeError, OSError) as error:
        raise click.ClickException(_explain(error, values["namespace"])) from error
    _report(issued, bundle, as_json=settings.output == "json")
    if bundle is CaBundle.ABSENT:
        click.echo(
            f"MutatingWebhookConfiguration {settings.webhook_configuration} does not exist: "
            "apply the manifests and run this again",
            err=True,
        )
        raise click.exceptions.Exit(NO_CONFIGURATION)


def run(store: Store, settings: Settings, *, now: datetime) -> tuple[Issued, CaBundle]:
    """Bring cluster and files to what the plan says; raises `KubeError` and OSError."""
    issued, bundle = _converge_with_patience(store, settings, now=now)
    if settings.write_to is not None:
        # The authority's key stays in the cluster.
        for outcome in issued.outcomes[1:]:
            files.write(Path(settings.write_to) / outcome.name, outcome.data)
    return issued, bundle


def _converge_with_patience(
    store: Store, settings: Settings, *, now: datetime
) -> tuple[Issued, CaBundle]:
    for _ in range(_ATTEMPTS - 1):
        try:
            return _converge(store, settings, now=now)
        except Conflict:
            continue
    return _converge(store, settings, now=now)


def _converge(store: Store, settings: Settings, *, now: datetime) -> tuple[Issued, CaBundle]:
    leaves = settings.leaves()
    held = store.read([names.AUTHORITY_SECRET, *(leaf.secret for leaf in leaves)])
    state = {name: found.data for name, found in held.items()}
    plan = make_plan(state, leaves, now=now, force=settings.force)
    issued = carry_out(plan, leaves, now=now, lifetimes=settings.lifetimes())

    def write(outcome: Outcome) -> None:
        if state.get(outcome.secret) != outcome.data:
            store.write(outcome.secret, outcome.data, held=held.get(outcome.secret))

    authority, *others = issued.outcomes
    write(authority)
    # Trusted before anything that it issued is served.
    bundle = store.trust(settings.webhook_configuration, issued.bundle)
    for outcome in others:
        write(outcome)
    return issued, bundle


def _explain(error: Exception, namespace: str) -> str:
    if isinstance(error, NotFound):
        return f"namespace {namespace} does not exist, apply the manifests first ({error})"
    if isinstance(error, CertificateError):
        return f"{error}: correct --webhook-host or --extender-host"
    return str(error)


def _report(issued: Issued, bundle: CaBundle, *, as_json: bool) -> None:
    rows = [
        {
            "certificate": outcome.name,
            "result": str(outcome.why),
            "validUntil": outcome.not_after.isoformat(timespec="seconds"),
            "secret": outcome.secret,
        }
        for outcome in issued.outcomes
    ]
    if as_json:
        report = {"certificates": rows, "caBundle": str(bundle)}
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    table = Table("CERTIFICATE", "RESULT", "VALID UNTIL", "SECRET", box=None)
    for row in rows:
        table.add_row(*row.values())
    # Logs have no width; a name that is cut off there helps nobody.
    console = Console(width=max(Console().width, _MIN_WIDTH))
    console.print(table)
    console.print(f"caBundle of the webhook configuration: {bundle}")


if __name__ == "__main__":
    main()
