"""The chart in the hands of Helm itself: install, change, uninstall, on a real API server.

No kubelet is here: pods are created, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.rendering import CHART
from localcluster.waiting import until
from tests.manifests.helm import Helm

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(600)]

#: All kinds that the chart makes and that lie outside of its namespace.
KINDS = (
    "namespaces,clusterroles,clusterrolebindings,runtimeclasses,mutatingwebhookconfigurations,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)
OURS = ("-l", "app.kubernetes.io/part-of=gpudetour", "-o", "name")
SYSTEM = "/api/v1/namespaces/gpudetour-system"
PODS = f"{SYSTEM}/pods"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster, and Helm as its administrator uses it."""

    cluster: LocalCluster
    helm: Helm

    def ours(self) -> set[str]:
        """Names of our objects outside of namespaces."""
        return set(self.cluster.kubectl("get", KINDS, *OURS).split())

    def is_gone(self, path: str) -> bool:
        """Tell whether there is no such object."""
        try:
            self.cluster.api.get(path)
        except ApiError as error:
            return error.status == 404
        return False

    def end_pods(self) -> None:
        """Confirm in kubelets' place that pods have ended."""
        for pod in self.cluster.api.get(PODS)["items"]:
            if pod["metadata"].get("deletionTimestamp"):
                try:
                    self.cluster.api.delete(f"{PODS}/{pod['metadata']['name']}", grace_seconds=0)
                except ApiError as error:
                    # The pod garbage collector was first.
                    if error.status != 404:
                        raise


@pytest.fixture
def site(tmp_path: Path, control_plane_parts: None, helm: Path) -> Iterator[Site]:
    """A cluster that knows nothing of us."""
    del control_plane_parts
    with LocalCluster(tmp_path / "c") as cluster:
        yield Site(cluster=cluster, helm=Helm(program=helm, cluster=cluster, home=tmp_path))


def test_a_release_comes_changes_and_goes_without_a_trace(site: Site) -> None:
    notes = site.helm.run("install", "gpudetour", str(CHART))

    assert "gpudetour scheduler-config --flavor kubeadm" in notes
    assert "10.96.0.51" in notes
    service = f"{SYSTEM}/services/gpudetour-extender"
    assert site.cluster.api.get(service)["spec"]["clusterIP"] == "10.96.0.51"
    installed = site.ours()
    assert "namespace/gpudetour-system" in installed

    notes = site.helm.run("upgrade", "gpudetour", str(CHART), "--set=scheduler.mode=second")

    assert "scheduler-config" not in notes
    assert site.is_gone(service)
    path = "/apis/apps/v1/namespaces/gpudetour-system/deployments/gpudetour-extender"
    containers = site.cluster.api.get(path)["spec"]["template"]["spec"]["containers"]
    (scheduler,) = (c for c in containers if c["name"] == "kube-scheduler")
    version = json.loads(site.cluster.kubectl("version", "-o", "json"))["serverVersion"]
    assert scheduler["image"].endswith(f":{version['gitVersion']}")

    site.helm.run("rollback", "gpudetour", "1")

    assert site.ours() == installed

    site.helm.run("uninstall", "gpudetour")

    def gone() -> bool:
        if not site.is_gone(SYSTEM):
            site.end_pods()
        return not site.ours()

    until(gone, timeout=90, what="nothing of ours to be left")
    assert site.helm.run("list", "--all", "--short").strip() == ""
    roles = site.cluster.kubectl("get", "roles,rolebindings", "-A", *OURS)
    assert roles.strip() == ""
