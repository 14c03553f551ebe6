"""`python -m webhook`: settings, threads and the server, put together."""

from __future__ import annotations

import os
import random
import socket
from datetime import UTC, datetime
from typing import Any

import click
import structlog

from kube.client import Client
from kube.connection import NoConnection, connect
from kube.events import EventRecorder
from service.certificates import Expiry
from service.command import CONTEXT, launch, with_options
from service.http import serve
from service.lifecycle import Lifecycle
from service.metrics import new_registry
from service.side_port import SidePort
from service.tls import TlsError
from webhook.app import create_app
from webhook.canary import RETRY, TIMEOUT, Canary, Pace, Trial
from webhook.canary_report import FIELD_MANAGER, CanaryMetrics, DeploymentReport
from webhook.canary_verdict import Verdict
from webhook.metrics import Metrics
from webhook.mutate import Mutator
from webhook.names import Names
from webhook.runtime_classes import RuntimeClasses
from webhook.settings import OPTIONS, Settings

log = structlog.get_logger()


@click.command(context_settings=CONTEXT)
@with_options(OPTIONS)
def main(**values: Any) -> None:
    """Serve the mutating admission webhook.

    Every option can be given as GPUDETOUR_<OPTION> in the environment too.
    """
    launch(lambda: Settings(**values), run, faults=(NoConnection, TlsError))


def run(settings: Settings) -> None:
    """Serve until SIGTERM; ends by SystemExit."""
    lifecycle = Lifecycle()
    runtime_classes = RuntimeClasses(Client(connect(settings.kubeconfig)))
    registry = new_registry("webhook")
    Expiry(registry).follow("webhook", settings.server().cert_file)

    def not_ready() -> str | None:
        return "stopping" if lifecycle.draining.is_set() else runtime_classes.not_ready()

    side_port = SidePort(settings.side_host, settings.side_port, registry=registry, ready=not_ready)
    mutator = Mutator(
        policy=settings.policy(),
        new_name=Names(os.urandom),
        runtime_classes=runtime_classes.snapshot,
    )

    canary_metrics = CanaryMetrics(registry)

    def on_start() -> None:
        side_port.start()
        lifecycle.spawn("runtime-classes", runtime_classes.run, wake=runtime_classes.close)
        if settings.canary_interval:
            start_canary(settings, mutator, canary_metrics, lifecycle)

    def on_stop() -> None:
        lifecycle.shutdown()
        side_port.stop()

    serve(
        create_app(mutator, metrics=Metrics(registry), not_ready=runtime_classes.not_ready),
        settings.server(),
        on_start=on_start,
        on_stop=on_stop,
        on_drain=lifecycle.draining.set,
    )


def start_canary(
    settings: Settings, mutator: Mutator, metrics: CanaryMetrics, lifecycle: Lifecycle
) -> None:
    """Start the canary and what writes its Events, with connections of their own."""
    client = Client(connect(settings.kubeconfig), timeout=TIMEOUT, pool_size=2)
    events = EventRecorder(client, component=FIELD_MANAGER, instance=socket.gethostname())
    report = DeploymentReport(client, deployment=settings.deployment, events=events)

    def tell(verdict: Verdict) -> None:
        metrics.count(verdict.outcome, now=datetime.now(UTC))
        report.tell(verdict)

    canary = Canary(
        Trial(client=client, mutator=mutator, namespace=settings.canary_namespace).run,
        tell=tell,
        pace=Pace(
            interval=settings.canary_interval,
            retry=min(RETRY, settings.canary_interval),
            jitter=lambda: random.uniform(0.8, 1.2),  # noqa: S311 - replicas take turns
        ),
    )
    lifecycle.spawn("canary-events", events.run)
    lifecycle.spawn("canary", canary.run)


if __name__ == "__main__":
    main()
