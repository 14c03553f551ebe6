"""`python -m certs issue` and `python -m certs run`: settings and parts, put together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from certs.clock import Clock
from certs.converge import Pass, settle
from certs.metrics import Metrics
from certs.rotation import Rotation
from certs.settings import ISSUE_OPTIONS, RUN_OPTIONS, IssueSettings, RunSettings
from certs.store import CaBundle, Store
from kube.client import Client
from kube.connection import NoConnection, connect
from kube.errors import KubeError, NotFound
from service.command import CONTEXT, launch, with_options
from service.lifecycle import Lifecycle
from service.metrics import new_registry
from service.side_port import SidePort

#: Exit code when all certificates are in place but no webhook configuration to trust them.
NO_CONFIGURATION = 3

#: Columns that the table needs.
_MIN_WIDTH = 100


@click.group()
def main() -> None:
    """Make and keep the certificates of the webhook, the extender and the scheduler."""


@main.command(context_settings=CONTEXT)
@with_options(ISSUE_OPTIONS)
def issue(**values: Any) -> None:
    """Issue what is missing, due or unusable, and keep the rest.

    Stores Secrets, fills the caBundle of the webhook configuration, and writes files if asked.
    A second run changes nothing. Exit code 3: all is stored, but the webhook configuration does
    not exist yet; create it and run again.
    """
    try:
        settings = IssueSettings(**values)
        store, clock = _parts(settings)
        done = settle(store, settings, now=clock.now, force=settings.force)
    except (ValueError, KubeError, OSError) as error:
        raise click.ClickException(_explain(error, values["namespace"])) from error
    _report(done, as_json=settings.output == "json")
    if done.bundle is CaBundle.ABSENT:
        click.echo(
            f"MutatingWebhookConfiguration {settings.webhook_configuration} does not exist: "
            "apply the manifests and run this again",
            err=True,
        )
        raise click.exceptions.Exit(NO_CONFIGURATION)


@main.command(context_settings=CONTEXT)
@with_options(RUN_OPTIONS)
def run(**values: Any) -> None:
    """Do what `issue` does for ever: renew in time, mend what others break.

    Several may run at once. Without any, certificates go on until they expire.
    """
    launch(lambda: RunSettings(**values), _run, faults=(NoConnection, OSError))


def _run(settings: RunSettings) -> None:
    lifecycle = Lifecycle()
    store, clock = _parts(settings)
    registry = new_registry("certs")
    rotation = Rotation(
        store,
        settings,
        clock=clock,
        metrics=Metrics(registry),
        every=settings.every.total_seconds(),
    )
    side_port = SidePort(
        settings.side_host, settings.side_port, registry=registry, ready=rotation.not_ready
    )
    lifecycle.install_signal_handlers()
    side_port.start()
    lifecycle.spawn("rotation", rotation.run)
    lifecycle.wait()
    lifecycle.shutdown()
    side_port.stop()


def _parts(settings: IssueSettings | RunSettings) -> tuple[Store, Clock]:
    client = Client(connect(settings.kubeconfig))
    store = Store(
        client, namespace=settings.namespace, configuration=settings.webhook_configuration
    )
    return store, Clock(ours=lambda: datetime.now(UTC), server=client.server_time)


def _explain(error: Exception, namespace: str) -> str:
    if isinstance(error, NotFound):
        return f"namespace {namespace} does not exist, apply the manifests first ({error})"
    return str(error)


def _report(done: Pass, *, as_json: bool) -> None:
    rows = [
        {
            "certificate": outcome.name,
            "result": str(outcome.why),
            "validUntil": outcome.not_after.isoformat(timespec="seconds"),
            "secret": outcome.secret,
        }
        for outcome in done.issued.outcomes
    ]
    if as_json:
        report = {"certificates": rows, "caBundle": str(done.bundle)}
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    table = Table("CERTIFICATE", "RESULT", "VALID UNTIL", "SECRET", box=None)
    for row in rows:
        table.add_row(*row.values())
    # Logs have no width; a name that is cut off there helps nobody.
    console = Console(width=max(Console().width, _MIN_WIDTH))
    console.print(table)
    console.print(f"caBundle of the webhook configuration: {done.bundle}")


if __name__ == "__main__":
    main()
