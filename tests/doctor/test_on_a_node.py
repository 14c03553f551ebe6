"""The doctor beside a real kubelet: the log of a plugin that runs there, and kubelet's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.__main__ import main
from doctor.gather.kubelet import read_kubelet
from doctor.gather.tree import Tree
from localcluster.cluster import LocalCluster
from localcluster.image.make import BOX_IMAGE
from localcluster.waiting import until
from tests.doctor.errors import ERROR_1

pytestmark = pytest.mark.node

_NODE = "node1"
_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.17.4"
_PATH = "/apis/apps/v1/namespaces/default/daemonsets/nvdp"


@pytest.fixture
def plugin(real_node: LocalCluster) -> Iterator[LocalCluster]:
    """A DaemonSet with the image name of NVIDIA's plugin, whose program logs its environment."""
    real_node.node.ctr("images", "tag", "--force", BOX_IMAGE, _IMAGE)
    labels = {"app": "nvdp"}
    container = {
        "name": "plugin",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "env": [{"name": "SAID", "value": ERROR_1}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    real_node.apply(
        [
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": "nvdp", "namespace": "default"},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            }
        ]
    )
    real_node.wait_for(_PATH, lambda found: found["status"].get("numberReady") == 1, timeout=120)
    until(
        lambda: "Waiting" in real_node.kubectl("logs", "daemonset/nvdp", check=False),
        timeout=60,
        what="the plugin's log",
    )
    yield real_node
    real_node.api.delete(_PATH)
    real_node.wait_for(
        "/api/v1/namespaces/default/pods",
        lambda found: not [p for p in found["items"] if p["metadata"]["name"].startswith("nvdp-")],
        timeout=120,
    )


def test_the_log_of_a_plugin_is_read_through_the_api(plugin: LocalCluster) -> None:
    command = [
        "--kubeconfig",
        str(plugin.admin_kubeconfig),
        "doctor",
        "--node",
        _NODE,
        "-o",
        "json",
    ]

    result = CliRunner().invoke(main, command)
    report: dict[str, Any] = json.loads(result.stdout)

    broken = {f["id"]: f for f in report["findings"] if f["outcome"] == "broken"}
    assert result.exit_code == 1
    assert report["unreadable"] == {}
    assert broken["plugin-runtime-class"]["because_of"] == []
    assert "Incompatible strategy detected auto" in broken["log-incompatible-strategy"]["saw"]
    assert broken["log-incompatible-strategy"]["because_of"] == ["plugin-runtime-class"]


def test_a_real_kubelets_folder_is_understood(real_node: LocalCluster) -> None:
    assert real_node.exists

    kubelet = read_kubelet(Tree(Path("/")), "/var/lib/kubelet")

    assert kubelet.has_socket
    assert kubelet.checkpoint_fault == ""
