"""Which distribution a cluster is, by its nodes, and so what to install."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster.shipped import MANIFESTS
from preflight.flavor import flavor_of
from preflight.surroundings import Machine
from tests.preflight.seen import CONTROL_PLANE

NODES: list[tuple[str, dict[str, Any]]] = [
    ("K3s", {"kubelet": "v1.34.2+k3s1", "labels": CONTROL_PLANE}),
    ("RKE2", {"kubelet": "v1.33.4+rke2r1"}),
    ("k0s", {"kubelet": "v1.33.1+k0s"}),
    ("MicroK8s", {"kubelet": "v1.32.9", "labels": {"microk8s.io/cluster": "true"}}),
    ("Talos", {"kubelet": "v1.34.1", "os_image": "Talos (v1.11.3)", "labels": CONTROL_PLANE}),
    ("kind", {"kubelet": "v1.34.0", "provider": "kind://docker/x/y", "labels": CONTROL_PLANE}),
    ("EKS", {"kubelet": "v1.33.5-eks-113cf36"}),
    ("GKE", {"kubelet": "v1.33.4-gke.1172000"}),
    ("AKS", {"kubelet": "v1.33.3", "labels": {"kubernetes.azure.com/cluster": "mc"}}),
    ("OpenShift", {"kubelet": "v1.31.9", "labels": {"node.openshift.io/os_id": "rhel"}}),
    ("kubeadm", {"kubelet": "v1.34.2", "labels": CONTROL_PLANE}),
    ("a managed control plane", {"kubelet": "v1.34.2"}),
]


@pytest.mark.parametrize(("name", "said"), NODES)
def test_a_node_tells_its_distribution(name: str, said: dict[str, Any]) -> None:
    flavor = flavor_of([Machine(name="n", **said)])

    assert flavor.name == name
    assert (MANIFESTS.parent / "docs" / "install" / f"{flavor.page}.md").exists()
    if flavor.manifest:
        assert (MANIFESTS / f"{flavor.manifest}.yaml").exists()


def test_workers_that_say_nothing_do_not_outvote_a_control_plane() -> None:
    workers = [Machine(name=f"w{i}", kubelet="v1.34.2") for i in range(50)]
    first = Machine(name="cp", kubelet="v1.34.2", labels=CONTROL_PLANE)

    assert flavor_of([*workers, first]).name == "kubeadm"


def test_most_nodes_decide() -> None:
    k3s = [Machine(name=f"k{i}", kubelet="v1.34.2+k3s1") for i in range(3)]
    stray = Machine(name="s", kubelet="v1.33.4+rke2r1")

    assert flavor_of([stray, *k3s]).name == "K3s"
