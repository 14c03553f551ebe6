"""The agent's command line, and what is generated for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nodeagent.__main__ import main
from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.devices import MigStrategy, Offering
from nodeagent.deviceplugin.driver_files import Roots
from nodeagent.settings import Settings

DEFAULTS = Settings(
    node_name="n1",
    kubeconfig=None,
    namespace="gpudetour-system",
    daemonset="",
    driver_root="/",
    dev_root=None,
    host_root="/",
    kubelet_dir="/var/lib/kubelet",
    device_plugin_dir="/var/lib/kubelet/device-plugins",
    cdi_dir="/var/run/cdi",
    plugin="auto",
    device_list="auto",
    mig_strategy=None,
    config_file=None,
    gpus="",
    exclude_gpus="",
    disable_health_checks="",
    enable_health_checks="",
    max_temperature=None,
    hold_down=60.0,
    registration_patience=60.0,
    interval=5.0,
    side_host="0.0.0.0",  # noqa: S104 - the default under test
    side_port=8080,
    log_level="info",
    log_format="json",
)


def _parsed(*arguments: str, env: dict[str, str] | None = None) -> Settings:
    with CliRunner().isolation(env=env):
        context = main.make_context("nodeagent", list(arguments))
    return Settings(**context.params)


def test_names_and_defaults() -> None:
    assert _parsed("--node-name=n1") == DEFAULTS


def test_the_environment_gives_what_the_command_line_does_not() -> None:
    env = {"NODE_NAME": "n1", "GPUDETOUR_PLUGIN": "never", "GPUDETOUR_INTERVAL": "2"}
    settings = _parsed("--interval=3", env=env)
    assert (settings.node_name, settings.plugin, settings.interval) == ("n1", "never", 3.0)
    assert not settings.plugin_allowed()


def test_device_nodes_are_below_the_driver_root_unless_told_otherwise() -> None:
    assert _parsed("--node-name=n", "--driver-root=/d", "--host-root=/h").roots() == Roots(
        driver=Path("/d"), dev=Path("/d"), host=Path("/h")
    )
    assert _parsed("--node-name=n", "--dev-root=/e").roots().dev == Path("/e")


def test_without_a_file_the_runtime_chooses_and_instances_keep_their_profiles() -> None:
    config = _parsed("--node-name=n").plugin_config()
    assert (config.device_list, config.offering) == (None, Offering(mig=MigStrategy.MIXED))


def test_the_command_line_is_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "version: v1\nflags: {migStrategy: single, plugin: {deviceListStrategy: [envvar]}}\n"
    )
    settings = ("--node-name=n", f"--config-file={file}")
    config = _parsed(*settings).plugin_config()
    assert (config.device_list, config.offering.mig) == (DeviceList.ENV, MigStrategy.SINGLE)
    config = _parsed(*settings, "--device-list=cdi", "--mig-strategy=none").plugin_config()
    assert (config.device_list, config.offering.mig) == (DeviceList.CDI, MigStrategy.NONE)


def test_a_driver_root_of_the_file_is_one_of_the_host(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("version: v1\nflags: {nvidiaDriverRoot: /run/nvidia/driver}\n")
    options = ["--node-name=n", f"--config-file={file}", "--host-root=/host"]
    right = _parsed(*options, "--driver-root=/host/run/nvidia/driver").plugin_config()
    assert right.driver_root == "/run/nvidia/driver"
    with pytest.raises(ValueError, match="set --driver-root=/host/run/nvidia/driver"):
        _parsed(*options, "--driver-root=/host").plugin_config()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Leave the test run interruptible: the agent takes the signals of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--node-name"),
        (["--node-name="], "--node-name is empty"),
        (["--node-name=n", "--plugin=maybe"], "maybe"),
        (["--node-name=n", "--interval=0"], "--interval"),
        (["--node-name=n", "--gpus=0,first"], "--gpus: 'first' is none of a GPU's UUID"),
        (["--node-name=n", "--exclude-gpus=GPU_1"], "--exclude-gpus: 'GPU_1'"),
        (["--node-name=n", "--disable-health-checks=79;31"], "DP_DISABLE_HEALTHCHECKS: '79;31'"),
        (["--node-name=n", "--max-temperature=0"], "--max-temperature"),
        (["--node-name=n", "--cdi-dir=relative"], "--cdi-dir must be an absolute path"),
        (["--node-name=n", "--config-file=/does/not/exist"], "/does/not/exist: No such file"),
        (["--node-name=n", "--kubeconfig=/does/not/exist"], "no usable kubeconfig"),
    ],
)
@pytest.mark.usefixtures("own_signals")
def test_bad_options_are_told_at_once(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, arguments, env={"NODE_NAME": None})
    assert result.exit_code != 0
    assert complaint in result.output


def test_what_would_cost_memory_is_not_imported() -> None:
    code = (
        "import sys, nodeagent.__main__; "
        "print([m for m in ('flask', 'kubernetes', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["deviceplugin/v1beta1", "podresources/v1"])
def test_stubs_are_what_the_proto_files_give(
    package: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    root = pytestconfig.rootpath
    command = [
        sys.executable, "-m", "grpc_tools.protoc", "-I", ".",
        f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}",
        f"nodeagent/{package}/api.proto",
    ]  # fmt: skip
    subprocess.run(command, cwd=root, check=True)
    for name in ("api_pb2.py", "api_pb2_grpc.py"):
        fresh = (tmp_path / "nodeagent" / package / name).read_text()
        assert (root / "nodeagent" / package / name).read_text() == fresh
