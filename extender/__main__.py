"""`python -m extender`: settings, threads and the server, put together."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from typing import Any
from wsgiref.types import WSGIApplication

import click
import structlog

from extender.app import create_app
from extender.binding.announcement import Announcer
from extender.binding.binder import Binder
from extender.binding.janitor import Janitor
from extender.cluster import Cluster
from extender.connections import Connections
from extender.filtering import Filter
from extender.leading.fence import Fence, FenceMode
from extender.leading.followed_lease import FollowedLease, LeaseMode
from extender.leading.leader import Leader
from extender.metrics import Metrics, Verb
from extender.pace import Pace
from extender.page.answers import TellingFilter
from extender.page.page import Page
from extender.patience import Patience
from extender.preempting.eviction import Evictor
from extender.preempting.preemption import Mode, Preemption
from extender.protocol import ExtenderBindingResult, encode
from extender.settings import OPTIONS, Settings
from extender.unclear import UnclearHolders
from extender.usage.recorder import Recorder
from extender.waking.bell import Bell
from extender.waking.waiting import Waiting
from kube.client import Client
from kube.connection import NoConnection, connect
from kube.events import EventRecorder
from kube.leases import Elector
from kube.objects import Node
from kube.reflector import Reflector
from service.bulkhead import at_most
from service.certificates import Expiry
from service.command import CONTEXT, launch, with_options
from service.http import serve
from service.lifecycle import Lifecycle
from service.metrics import new_registry
from service.side_port import SidePort
from service.tls import TlsError
from service.watchdog import Watchdog

#: Who reports the Events.
COMPONENT = "gpudetour-extender"

#: Seconds for which the answer to filter may wait for binds; kube-scheduler's timeout is 2 s.
_PACE_PATIENCE = 0.25
#: Seconds that the answer to a bind waits for kube-scheduler to take up an idle connection: longer
#: than its loop takes for a pod.
_ANSWER_PATIENCE = 0.1
_TOO_MANY = "too many binds wait for the API server already, this one will be tried again"

log = structlog.get_logger()


@click.command(context_settings=CONTEXT)
@with_options(OPTIONS)
def main(**values: Any) -> None:
    """Serve filter, prioritize and bind to kube-scheduler.

    Every option can be given as GPUDETOUR_<OPTION> in the environment too.
    """
    launch(lambda: Settings(**values), run, faults=(NoConnection, TlsError))


def run(settings: Settings) -> None:
    """Serve until SIGTERM; ends by SystemExit."""
    lifecycle = Lifecycle()
    client = Client(
        connect(settings.kubeconfig), timeout=settings.api_timeout, pool_size=settings.threads
    )
    cluster, waiting = Cluster(), Waiting()
    page = Page(cluster) if settings.page else None
    on_node = page.on_node if page is not None else cluster.on_node
    nodes = Reflector(client, "/api/v1/nodes", type=Node, on_event=on_node)
    required = FenceMode(settings.fence) is FenceMode.REQUIRE
    leader = Leader(
        client,
        cluster,
        fence=Fence(client, namespace=settings.namespace) if required else None,
        nodes_synced=nodes.synced.is_set,
    )
    lease = _lease(settings, client, leader)
    leader.follow(lease)
    registry = new_registry("extender")
    expiry = Expiry(registry)
    expiry.follow("extender", settings.server().cert_file)
    metrics = Metrics(registry, snapshot=cluster.snapshot, epoch=leader.serving)

    def ledger_age() -> float:
        pods = leader.last_contact()
        contacts = [nodes.last_contact] if pods is None else [nodes.last_contact, pods]
        return time.monotonic() - min(contacts)

    metrics.ledger_age.set_function(ledger_age)
    # Of binds, apart from all else: there may be hundreds a second, and two are told.
    told = EventRecorder(client, component=COMPONENT, instance=socket.gethostname())
    evicting = Mode(settings.preemption) is Mode.EVICT
    preemption = Preemption(cluster, evicting=evicting)
    app = create_app(
        _filter(settings, cluster, waiting, page),
        Binder(
            client,
            cluster,
            epoch=leader.serving,
            metrics=metrics,
            on_bound=Announcer(told, cluster, clock=time.monotonic).bound,
            on_forbidden=leader.doubt,
        ),
        preemption,
        metrics=metrics,
        not_ready=leader.not_ready,
        client_name=settings.client_name,
    )

    def not_ready() -> str | None:
        return "stopping" if lifecycle.draining.is_set() else leader.not_ready()

    events = EventRecorder(client, component=COMPONENT, instance=socket.gethostname())
    unclear = UnclearHolders(cluster, events, leading=lambda: leader.serving() is not None)
    bell = Bell(
        client,
        cluster,
        waiting,
        namespace=settings.namespace,
        leading=lambda: leader.serving() is not None,
    )
    evictor = Evictor(
        client, cluster, preemption, epoch=leader.serving, events=events, metrics=metrics
    )
    recorder = Recorder(
        client,
        cluster.snapshot,
        namespace=settings.namespace,
        leading=lambda: leader.serving() is not None,
        every=settings.usage_every,
    )
    side_port = SidePort(
        settings.side_host,
        settings.side_port,
        registry=registry,
        ready=not_ready,
        site=page.site(not_ready) if page is not None else None,
    )

    watchdog = Watchdog(settings.limits())
    pace = Pace(settings.binds_ahead, patience=_PACE_PATIENCE)
    # A followed Lease is kube-scheduler's, which hands it on itself.
    resign = lease.resign if isinstance(lease, Elector) else None

    def on_start() -> None:
        side_port.start()
        lifecycle.spawn("watchdog", watchdog.run)
        lifecycle.spawn("nodes", nodes.run, wake=nodes.close)
        lifecycle.spawn("leader", leader.run, wake=leader.close)
        lifecycle.spawn("lease", lease.run, wake=resign)
        lifecycle.spawn("janitor", Janitor(client, cluster).run)
        lifecycle.spawn("unclear", unclear.run)
        lifecycle.spawn("bell", bell.run)
        lifecycle.spawn("events", events.run)
        lifecycle.spawn("usage", recorder.run)
        lifecycle.spawn("events-of-binds", told.run)
        if evicting:
            lifecycle.spawn("evictor", evictor.run)

    def on_drain() -> None:
        lifecycle.draining.set()
        if resign is not None:
            # Not only after the last connection has ended, for that takes seconds when they are
            # idle. What is on its way then is done in time, or refused by the fence.
            handing_over = threading.Timer(settings.drain, resign)
            handing_over.daemon = True
            handing_over.start()

    def on_stop() -> None:
        lifecycle.shutdown()
        side_port.stop()

    watched = watchdog.over(_leaving_threads(app, settings))
    connections = Connections(patience=_ANSWER_PATIENCE)
    serve(
        expiry.of_callers(
            connections.over(pace.over(watched, waited=metrics.paced.observe)),
            "scheduler-client",
        ),
        settings.server(),
        on_start=on_start,
        on_stop=on_stop,
        on_drain=on_drain,
    )


def _filter(settings: Settings, cluster: Cluster, waiting: Waiting, page: Page | None) -> Filter:
    """Return what answers filter and prioritize, and tells the page where there is one."""
    placer = TellingFilter(
        cluster,
        choice=settings.choice(),
        hold_seconds=settings.hold,
        patience=Patience(settings.catch_up),
        waiting=waiting,
    )
    if page is not None:
        placer.remember_in(page.answers)
    return placer


def _leaving_threads(app: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Return `app` with so many binds at once that the other verbs never wait for a thread."""
    return at_most(
        app,
        settings.binds(),
        path=f"/{Verb.BIND.value}",
        refusal=encode(ExtenderBindingResult(error=_TOO_MANY)),
        content_type="application/json",
    )


def _lease(settings: Settings, client: Client, leader: Leader) -> Elector | FollowedLease:
    """Return what decides when `leader` leads."""
    hostname = socket.gethostname()
    if LeaseMode(settings.lease_mode) is LeaseMode.FOLLOW:
        return FollowedLease(
            client,
            namespace=settings.namespace,
            name=settings.lease,
            hostname=hostname,
            on_leading=leader.on_leading,
            on_lost=leader.on_lost,
            fresh_for=settings.renew_deadline,
            every=settings.lease_retry,
        )
    return Elector(
        client,
        namespace=settings.namespace,
        name=settings.lease,
        identity=f"{hostname}_{uuid.uuid4()}",
        on_leading=leader.on_leading,
        on_lost=leader.on_lost,
        duration=settings.lease_duration,
        renew_deadline=settings.renew_deadline,
        retry=settings.lease_retry,
    )


if __name__ == "__main__":
    main()
