"""Settings of the extender and their command line options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from extender.leading.fence import FenceMode
from extender.leading.followed_lease import LeaseMode
from extender.metrics import Verb
from extender.placement.shortlist import Choice
from extender.placement.strategies import strategy
from extender.preempting.preemption import Mode
from gpus.wishes import Policy
from service import command
from service.http import ServerSettings

#: 5,000 node names of the greatest length, and a pod as large as the API server takes.
_MAX_BODY = 16 * 1024 * 1024
#: Calls of one bind at most: the pod, three rounds with its ConfigMap (create, read, delete), the
#: Binding, and the pod again to see what became of it.
_BIND_CALLS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen about an extender process; times in seconds."""

    host: str
    port: int
    tls_dir: str
    client_ca_file: str | None
    client_name: str
    side_host: str
    side_port: int
    threads: int
    drain: float
    kubeconfig: str | None
    api_timeout: float
    namespace: str
    lease: str
    lease_mode: str
    lease_duration: float
    renew_deadline: float
    lease_retry: float
    fence: str
    shortlist: int
    policy: str
    hold: float
    catch_up: float
    binds_ahead: int
    preemption: str
    stuck_after: float
    usage_every: float
    page: bool
    log_level: str
    log_format: str

    def __post_init__(self) -> None:
        if self.shortlist < 0:
            raise ValueError("--shortlist must be 0 (all nodes) or more")
        if self.hold < 0:
            raise ValueError("--hold must be 0 (hold nothing) or more seconds")
        if not 0 <= self.catch_up <= 1:
            raise ValueError("--catch-up must be 0 to 1 second: the scheduler waits as long")
        if self.stuck_after < 2:
            raise ValueError("--stuck-after must be 2 seconds or more: the scheduler waits as long")
        if self.binds_ahead < 1:
            raise ValueError("--binds-ahead must be 1 or more")
        if not self.client_name:
            raise ValueError("--client-name must name the scheduler's certificate")
        if not self.lease_duration > self.renew_deadline > self.lease_retry > 0:
            raise ValueError(
                "--lease-duration must exceed --renew-deadline, and that --lease-retry, all above 0"
            )

    def choice(self) -> Choice:
        """Return how nodes are ranked, and how many the scheduler is told."""
        return Choice(rank=strategy(Policy(self.policy)), limit=self.shortlist)

    def limits(self) -> dict[str, float]:
        """Return for how many seconds each verb may be at work before it counts as stuck.

        All but bind work in memory alone. Bind may make all its calls to the API server, each of
        them as slow as can be, after another bind of the same pod has done the same.
        """
        limits = dict.fromkeys((verb.value for verb in Verb), self.stuck_after)
        limits[Verb.BIND.value] += 2 * _BIND_CALLS * self.api_timeout
        return limits

    def binds(self) -> int:
        """Return how many binds may be at work, so that filter never waits for a thread."""
        return max(1, self.threads * 3 // 4)

    def server(self) -> ServerSettings:
        """Return where and how to serve."""
        folder = Path(self.tls_dir)
        return ServerSettings(
            host=self.host,
            port=self.port,
            cert_file=str(folder / "tls.crt"),
            key_file=str(folder / "tls.key"),
            client_ca_file=self.client_ca_file or str(folder / "ca.crt"),
            threads=self.threads,
            drain=self.drain,
            max_body=_MAX_BODY,
        )


OPTIONS: tuple[command.Option, ...] = (
    *command.HTTPS,
    click.option(
        "--tls-dir",
        default="/etc/gpudetour/tls",
        help="Folder with tls.crt, tls.key and ca.crt; changed files are used without a restart.",
    ),
    click.option(
        "--client-ca-file",
        default=None,
        help="CA of the scheduler's certificate; absent: ca.crt in --tls-dir.",
    ),
    click.option(
        "--client-name",
        default="gpudetour-scheduler",
        help="Common name of the only client certificate that may call.",
    ),
    *command.SIDE_PORT,
    click.option("--drain", default=0.0, help="Seconds to go on serving after SIGTERM."),
    *command.KUBECONFIG,
    click.option("--api-timeout", default=10.0, help="Seconds for one call to the API server."),
    click.option("--namespace", default="gpudetour-system", help="Namespace of the Lease."),
    click.option("--lease", default="gpudetour-extender", help="Lease whose holder serves."),
    click.option(
        "--lease-mode",
        type=click.Choice([mode.value for mode in LeaseMode]),
        default=LeaseMode.ELECT.value,
        help="elect: run for the Lease; follow: serve while the kube-scheduler in this pod holds "
        "it, and stop --renew-deadline after its last renewal.",
    ),
    click.option("--lease-duration", default=15.0, help="Seconds until another may take over."),
    click.option("--renew-deadline", default=10.0, help="Seconds after which a leader stops."),
    click.option("--lease-retry", default=1.0, help="Seconds between renewals."),
    click.option(
        "--fence",
        type=click.Choice([mode.value for mode in FenceMode]),
        default=FenceMode.REQUIRE.value,
        help="Serve only when the API server refuses leaders of the past; off: trust the Lease.",
    ),
    click.option(
        "--shortlist",
        default=1,
        help="Nodes named to the scheduler for a pod; more where another extender judges after "
        "this one, 0 names all.",
    ),
    click.option(
        "--policy",
        type=click.Choice([policy.value for policy in Policy]),
        default=Policy.BINPACK.value,
        help="Fill the nodes that are used most, or spread pods out.",
    ),
    click.option(
        "--hold",
        default=5.0,
        help="Seconds to keep a place on the best node between filter and bind; 0: do not.",
    ),
    click.option(
        "--catch-up",
        default=0.1,
        help="Seconds to wait for a GPU that may just have been given back, if none is free; "
        "at most a twentieth of the time.",
    ),
    click.option(
        "--preemption",
        type=click.Choice([mode.value for mode in Mode]),
        default=Mode.OFF.value,
        help="Evict pods of lower priority whose GPUs a pod waits for (preemption.enabled of the "
        "chart grants the right); off: leave it to kube-scheduler, which sees no GPUs.",
    ),
    click.option(
        "--stuck-after",
        default=5.0,
        help="Seconds after which a request that waits for nobody counts as stuck and ends the "
        "process; bind gets the time of its calls to the API server in addition.",
    ),
    click.option(
        "--usage-every",
        type=click.FloatRange(min=1),
        default=300.0,
        help="Seconds between writes of who held how many GPUs (gpudetour usage).",
    ),
    click.option(
        "--page/--no-page",
        default=False,
        help="Show the fleet, who holds what and why pods wait, to whoever reaches the side port.",
    ),
    click.option(
        "--binds-ahead",
        default=4,
        help="Binds under way at which the answer to filter waits a moment; of many at once, each "
        "costs a TLS handshake.",
    ),
    *command.LOGGING,
)
