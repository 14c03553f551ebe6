"""Settings of the webhook and their command line options; the only reader of its environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from gpus.annotations import GPU_SELECTOR
from gpus.model import GPU_RESOURCE
from service import command
from service.http import ServerSettings
from webhook.policy import Policy

_SELECTOR = re.compile(
    r"(?P<key>(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,62})=(?P<value>[A-Za-z0-9._-]{0,63})"
)
_DEPLOYMENT = re.compile(r"[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen about a webhook process; times in seconds."""

    host: str
    port: int
    tls_dir: str
    client_ca_file: str | None
    side_host: str
    side_port: int
    threads: int
    drain: float
    kubeconfig: str | None
    runtime_class: str
    node_selector: str
    toleration_key: str
    scheduler_name: str
    close_others: bool
    canary_interval: float
    canary_namespace: str
    deployment: str
    log_level: str
    log_format: str

    def __post_init__(self) -> None:
        if _SELECTOR.fullmatch(self.node_selector) is None:
            raise ValueError(
                f"--node-selector {self.node_selector!r} is not KEY=VALUE of a node label"
            )
        if not 0 <= self.canary_interval < float("inf"):
            raise ValueError(f"--canary-interval {self.canary_interval} is no number of seconds")
        if _DEPLOYMENT.fullmatch(self.deployment) is None:
            raise ValueError(f"--deployment {self.deployment!r} is not NAMESPACE/NAME")

    def policy(self) -> Policy:
        """Return what becomes of pods that ask for GPUs."""
        key, _, value = self.node_selector.partition("=")
        return Policy(
            runtime_class=self.runtime_class,
            selector_key=key,
            selector_value=value,
            toleration_key=self.toleration_key,
            scheduler_name=self.scheduler_name,
            close_others=self.close_others,
        )

    def server(self) -> ServerSettings:
        """Return where and how to serve."""
        return ServerSettings(
            host=self.host,
            port=self.port,
            cert_file=str(Path(self.tls_dir) / "tls.crt"),
            key_file=str(Path(self.tls_dir) / "tls.key"),
            client_ca_file=self.client_ca_file,
            threads=self.threads,
            drain=self.drain,
        )


OPTIONS: tuple[command.Option, ...] = (
    *command.HTTPS,
    click.option(
        "--tls-dir",
        default="/etc/gpudetour/tls",
        help="Folder with tls.crt and tls.key; changed files are used without a restart.",
    ),
    click.option(
        "--client-ca-file",
        default=None,
        help="Serve only clients with a certificate of this CA (API servers set up for it).",
    ),
    *command.SIDE_PORT,
    click.option("--drain", default=5.0, help="Seconds to go on serving after SIGTERM."),
    *command.KUBECONFIG,
    click.option("--runtime-class", default="nvidia", help="Set where it exists and none is set."),
    click.option(
        "--node-selector",
        default=GPU_SELECTOR,
        help="KEY=VALUE, the label of nodes with GPUs.",
    ),
    click.option("--toleration-key", default=str(GPU_RESOURCE), help="Taint of nodes with GPUs."),
    click.option(
        "--scheduler-name",
        default="",
        help="Scheduler of pods that ask for GPUs and for no scheduler of their own; empty: the "
        "default one.",
    ),
    click.option(
        "--close-others",
        is_flag=True,
        help="Serve /close too, which hides the GPUs from pods that ask for none, for nodes whose "
        "default runtime is NVIDIA's.",
    ),
    click.option(
        "--canary-interval",
        default=60.0,
        help="Seconds between trials whether GPU pods are admitted as they must be; 0: none.",
    ),
    click.option(
        "--canary-namespace",
        default="gpudetour-canary",
        help="Where trial pods are created, as dry runs only.",
    ),
    click.option(
        "--deployment",
        default="gpudetour-system/gpudetour-webhook",
        help="NAMESPACE/NAME of the Deployment that shows what the trials prove.",
    ),
    *command.LOGGING,
)
