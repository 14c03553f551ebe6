"""Settings of the node agent and their command line options; the only reader of its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.driver_files import Roots
from service import command


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen about an agent process; times in seconds."""

    node_name: str
    kubeconfig: str | None
    namespace: str
    driver_root: str
    dev_root: str | None
    host_root: str
    kubelet_dir: str
    device_plugin_dir: str
    cdi_dir: str
    plugin: str
    device_list: str
    registration_patience: float
    interval: float
    side_host: str
    side_port: int
    log_level: str
    log_format: str

    def __post_init__(self) -> None:
        if not self.node_name:
            raise ValueError("--node-name is empty: give the name of the Node this agent runs on")
        if self.interval <= 0 or self.registration_patience < 0:
            raise ValueError("--interval must be above zero, --registration-patience not below")
        for option in ("driver_root", "host_root", "kubelet_dir", "device_plugin_dir", "cdi_dir"):
            if not Path(getattr(self, option)).is_absolute():
                raise ValueError(f"--{option.replace('_', '-')} must be an absolute path")

    def roots(self) -> Roots:
        """Return where the driver's files and device nodes are seen, and the host."""
        return Roots(
            driver=Path(self.driver_root),
            dev=Path(self.dev_root or self.driver_root),
            host=Path(self.host_root),
        )

    def plugin_allowed(self) -> bool:
        """Tell whether our own device plugin may serve."""
        return self.plugin != "never"

    def fixed_device_list(self) -> DeviceList | None:
        """Return how devices are handed over, None where the node's runtime decides."""
        return None if self.device_list == "auto" else DeviceList(self.device_list)


OPTIONS: tuple[command.Option, ...] = (
    click.option(
        "--node-name",
        required=True,
        envvar="NODE_NAME",
        show_envvar=True,
        help="Name of the Node that this agent runs on.",
    ),
    *command.KUBECONFIG,
    click.option("--namespace", default="gpudetour-system", help="Where the agent's Lease is."),
    click.option(
        "--driver-root", default="/", help="Root of the files of NVIDIA's driver, as seen here."
    ),
    click.option("--dev-root", default=None, help="Root of dev/nvidia*; absent: the driver root."),
    click.option("--host-root", default="/", help="Where the host's root is mounted."),
    click.option("--kubelet-dir", default="/var/lib/kubelet", help="Kubelet's --root-dir."),
    click.option(
        "--device-plugin-dir",
        default="/var/lib/kubelet/device-plugins",
        help="Kubelet's plugin folder; it does not follow kubelet's --root-dir.",
    ),
    click.option("--cdi-dir", default="/var/run/cdi", help="Where the CDI spec is written."),
    click.option(
        "--plugin",
        default="auto",
        type=click.Choice(("auto", "never")),
        help="Serve a device plugin where no other one works, or never.",
    ),
    click.option(
        "--device-list",
        default="auto",
        type=click.Choice(("auto", "cdi", "env")),
        help="Hand devices over as CDI names or as NVIDIA_VISIBLE_DEVICES; auto asks the runtime.",
    ),
    click.option(
        "--registration-patience",
        default=60.0,
        help="Seconds after which a kubelet that does not take the plugin is given up.",
    ),
    click.option("--interval", default=5.0, help="Seconds between looks at GPUs and kubelet."),
    *command.SIDE_PORT,
    *command.LOGGING,
)
