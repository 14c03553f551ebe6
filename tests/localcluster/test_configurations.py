"""What the parts are configured with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from localcluster.layout import Layout, Ports, Remembered, StateError
from localcluster.node.configuration import (
    NodeLayout,
    cni_conflist,
    containerd_toml,
    kubelet_configuration,
)
from localcluster.ports import free_ports
from localcluster.scheduler import scheduler_configuration

KUBECONFIG = Path("/state/scheduler.kubeconfig")
REMEMBERED = Remembered(
    ports=Ports(**dict.fromkeys(Ports.names(), 1)), programs={"kubectl": Path("/bin/kubectl")}
)


def test_a_scheduler_configuration_keeps_all_but_its_connection(tmp_path: Path) -> None:
    given = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": "/etc/kubernetes/scheduler.conf", "qps": 100},
        "leaderElection": {"leaderElect": True},
        "percentageOfNodesToScore": 100,
    }
    file = tmp_path / "scheduler.yaml"
    file.write_text(yaml.safe_dump(given))

    written = json.loads(scheduler_configuration(file, kubeconfig=KUBECONFIG))

    connection = {"kubeconfig": str(KUBECONFIG), "qps": 100}
    assert written == {**given, "clientConnection": connection}


def test_the_default_scheduler_configuration_elects_no_leader() -> None:
    written = json.loads(scheduler_configuration(None, kubeconfig=KUBECONFIG))

    assert written["leaderElection"] == {"leaderElect": False}
    assert written["clientConnection"] == {"kubeconfig": str(KUBECONFIG)}


@pytest.mark.parametrize("text", ["", "kind: Pod", "- a list"])
def test_another_file_is_no_scheduler_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text(text)

    with pytest.raises(ValueError, match="no KubeSchedulerConfiguration"):
        scheduler_configuration(file, kubeconfig=KUBECONFIG)


@pytest.mark.parametrize("restricted", [True, False])
def test_containerd_reads_its_configuration(restricted: bool) -> None:
    layout = NodeLayout(Path('/state/a "quoted" folder'))
    text = containerd_toml(
        layout,
        runc=Path("/cache/runc"),
        cni_plugins=[Path("/cache/cni")],
        restrict_oom_score=restricted,
    )

    plugins = tomllib.loads(text)["plugins"]
    runtime = plugins["io.containerd.cri.v1.runtime"]
    assert runtime["cdi_spec_dirs"] == [str(layout.cdi)]
    assert runtime["restrict_oom_score_adj"] is restricted
    runtimes = runtime["containerd"]["runtimes"]
    assert runtimes["nvidia"] == runtimes["runc"]
    assert runtimes["runc"]["options"]["BinaryName"] == "/cache/runc"


def test_kubelet_serves_on_the_loopback_address_and_trusts_nobody_unknown() -> None:
    text = kubelet_configuration(NodeLayout(Path("/s/node")), pki=Path("/s/pki"), port=12345)

    configuration = json.loads(text)
    assert (configuration["address"], configuration["port"]) == ("127.0.0.1", 12345)
    assert configuration["readOnlyPort"] == 0
    assert configuration["authentication"]["anonymous"] == {"enabled": False}
    assert configuration["authorization"] == {"mode": "Webhook"}


def test_the_pod_network_creates_no_interface() -> None:
    conflist = json.loads(cni_conflist(NodeLayout(Path("/s/node"))))

    assert [plugin["type"] for plugin in conflist["plugins"]] == ["host-local"]


def test_a_state_folder_remembers(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")

    layout.create(REMEMBERED)

    assert layout.recall() == REMEMBERED
    assert layout.state.stat().st_mode & 0o777 == 0o700


def test_a_state_folder_in_use_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create(REMEMBERED)

    with pytest.raises(StateError, match="localcluster down --state"):
        layout.create(REMEMBERED)


def test_a_folder_with_other_files_is_refused_and_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    layout = Layout(tmp_path)

    with pytest.raises(StateError, match="not empty"):
        layout.create(REMEMBERED)
    layout.remove()

    assert (tmp_path / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"v": 2}', '{"v": 1}', '{"v": 1, "ports": {}, "programs": {}}']
)
def test_a_damaged_memory_is_told(tmp_path: Path, text: str) -> None:
    layout = Layout(tmp_path)
    layout.marker.write_text(text)

    with pytest.raises(StateError):
        layout.recall()


def test_ports_are_free_and_different() -> None:
    ports = free_ports(50)

    assert len(set(ports)) == 50
    assert all(20_000 <= port < 32_000 for port in ports)
