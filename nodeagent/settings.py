"""Settings of the node agent and their command line options; the only reader of its environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from nodeagent.departure import Home, home_of
from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.configfile import PluginConfig, load_config
from nodeagent.deviceplugin.devices import MigStrategy
from nodeagent.deviceplugin.driver_files import Roots
from nodeagent.inventory.choice import Choice
from nodeagent.inventory.keeper import Rules
from nodeagent.inventory.standing import HoldDown
from nodeagent.inventory.xids import health_policy
from service import command


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen about an agent process; times in seconds."""

    node_name: str
    kubeconfig: str | None
    namespace: str
    daemonset: str
    driver_root: str
    dev_root: str | None
    host_root: str
    kubelet_dir: str
    device_plugin_dir: str
    cdi_dir: str
    plugin: str
    device_list: str
    mig_strategy: str | None
    config_file: str | None
    gpus: str
    exclude_gpus: str
    disable_health_checks: str
    enable_health_checks: str
    max_temperature: int | None
    hold_down: float
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
        self.rules()
        self.home()

    def home(self) -> Home | None:
        """Return what starts agents on this node, if that is known; raises `ValueError`."""
        return home_of(self.daemonset)

    def roots(self) -> Roots:
        """Return where the driver's files and device nodes are seen, and the host."""
        return Roots(
            driver=Path(self.driver_root),
            dev=Path(self.dev_root or self.driver_root),
            host=Path(self.host_root),
        )

    def plugin_config(self) -> PluginConfig:
        """Return what --config-file says, with the command line before it; raises `ValueError`."""
        config = PluginConfig()
        if self.config_file is not None:
            config = load_config(Path(self.config_file))
            self._check_roots(config)
        if self.mig_strategy is not None:
            offering = replace(config.offering, mig=MigStrategy(self.mig_strategy))
            config = replace(config, offering=offering)
        if self.device_list != "auto":
            config = replace(config, device_list=DeviceList(self.device_list))
        return config

    def _check_roots(self, config: PluginConfig) -> None:
        """The file names folders of the host, the options folders as the agent sees them."""
        roots = self.roots()
        for setting, said, option, seen in (
            ("nvidiaDriverRoot", config.driver_root, "--driver-root", roots.driver),
            ("nvidiaDevRoot", config.dev_root, "--dev-root", roots.dev),
        ):
            if said is not None and Path(said) != Path(roots.on_host(seen)):
                raise ValueError(
                    f"--config-file: flags.{setting} is {said}, but {option} makes it "
                    f"{roots.on_host(seen)}: set {option}={roots.host / said.lstrip('/')}"
                )

    def rules(self) -> Rules:
        """Return what is decided about GPUs; raises `ValueError`."""
        return Rules(
            choice=Choice(only=self.gpus, exclude=self.exclude_gpus),
            health=health_policy(
                self.disable_health_checks,
                self.enable_health_checks,
                max_temperature=self.max_temperature,
            ),
            hold_down=HoldDown(base=self.hold_down),
        )

    def plugin_allowed(self) -> bool:
        """Tell whether our own device plugin may serve."""
        return self.plugin != "never"


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
        "--daemonset",
        default="",
        help="NAMESPACE/NAME of what starts agents here: when it is gone, the last one cleans up.",
    ),
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
        "--mig-strategy",
        default=None,
        type=click.Choice([str(each) for each in MigStrategy]),
        help="As of NVIDIA's device plugin; absent: what the configuration file says, else mixed.",
    ),
    click.option(
        "--config-file",
        default=None,
        help="NVIDIA's configuration file of its device plugin (version: v1), as it is.",
    ),
    click.option(
        "--gpus",
        default="",
        help="The only GPUs to give out: UUIDs, PCI addresses, indices or `display`, with commas.",
    ),
    click.option(
        "--exclude-gpus",
        default="",
        help="GPUs never to give out, named in the same way; `display`: all that drive a screen.",
    ),
    click.option(
        "--disable-health-checks",
        default="",
        envvar="DP_DISABLE_HEALTHCHECKS",
        show_envvar=True,
        help="Xids that are no fault of a GPU, besides those of programs; `xids`, or `all` checks.",
    ),
    click.option(
        "--enable-health-checks",
        default="",
        envvar="DP_ENABLE_HEALTHCHECKS",
        show_envvar=True,
        help="Xids that are a fault of a GPU whatever else is said; `all`.",
    ),
    click.option(
        "--max-temperature",
        default=None,
        type=click.IntRange(min=1),
        help="Degrees Celsius from which on a GPU is given to no new pod; absent: any.",
    ),
    click.option(
        "--hold-down",
        default=60.0,
        type=click.FloatRange(min=0.0),
        help="Seconds that a GPU which failed must show no failure before it is given out again.",
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
