"""preflight against a real API server, with the real objects of other software."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from cli.__main__ import main
from localcluster.cluster import LocalCluster
from localcluster.waiting import until

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(300)]

Object = dict[str, Any]
NAMESPACE = "preflight"


def preflight(cluster: LocalCluster, *, kubeconfig: str = "") -> tuple[int, Object]:
    where = kubeconfig or str(cluster.admin_kubeconfig)
    done = CliRunner().invoke(main, ["preflight", "--kubeconfig", where, "-o", "json"])
    assert done.stdout, done.output
    return done.exit_code, json.loads(done.stdout)


def told(report: Object, check: str) -> tuple[str, str]:
    (found,) = (each for each in report["findings"] if each["id"] == check)
    return found["outcome"], found["saw"]


@contextmanager
def there(cluster: LocalCluster, *objects: Object) -> Iterator[None]:
    """Apply objects, and take them away again whatever happens."""
    cluster.apply(objects)
    try:
        yield
    finally:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        cluster.kubectl(
            "delete", "--ignore-not-found", "--wait=true", "-f", "-", stdin=json.dumps(items)
        )


def node(name: str, kubelet: str) -> Object:
    """A Node as kubelet registers it."""
    info = dict.fromkeys(
        (
            "architecture",
            "bootID",
            "containerRuntimeVersion",
            "kernelVersion",
            "kubeProxyVersion",
            "machineID",
            "osImage",
            "systemUUID",
        ),
        "",
    )
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"nodeInfo": {**info, "kubeletVersion": kubelet, "operatingSystem": "linux"}},
    }


@contextmanager
def machine(cluster: LocalCluster, name: str, kubelet: str) -> Iterator[None]:
    cluster.api.create("/api/v1/nodes", node(name, kubelet))
    try:
        yield
    finally:
        cluster.api.delete(f"/api/v1/nodes/{name}")


def workload(kind: str, name: str, image: str) -> Object:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    # Nobody runs them.
                    "nodeSelector": {"preflight": "never"},
                    "containers": [{"name": "main", "image": image}],
                },
            },
        },
    }


def definition(group: str, plural: str, kind: str) -> Object:
    """A CustomResourceDefinition, of which only the group matters here."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None
) -> Iterator[LocalCluster]:
    """A cluster of its own: what other tests leave in theirs is what preflight looks for."""
    del control_plane_parts
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    with LocalCluster(tmp_path_factory.mktemp("preflight") / "cluster") as cluster:
        cluster.apply([namespace])
        yield cluster


def test_a_cluster_of_ours_is_ready(cluster: LocalCluster) -> None:
    with machine(cluster, "preflight-plain", "v1.34.2"):
        code, report = preflight(cluster)

    assert (code, report["ready"]) == (0, True), report
    for check in ("server-version", "admission-policies", "rights", "pod-security"):
        assert told(report, check)[0] == "ok", told(report, check)


def test_an_address_outside_the_range_is_told_with_the_range(cluster: LocalCluster) -> None:
    with machine(cluster, "preflight-k3s", "v1.34.2+k3s1"):
        code, report = preflight(cluster)

    # The range of this API server is not that of K3s.
    outcome, saw = told(report, "service-address")
    assert (code, outcome) == (1, "broken")
    assert "10.43.0.51 is not in the cluster's Service range 10." in saw
    assert report["distribution"] == "K3s"


def test_an_address_that_somebody_has_is_told_with_its_owner(cluster: LocalCluster) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cart", "namespace": NAMESPACE},
        "spec": {"clusterIP": "10.96.0.51", "ports": [{"port": 80}]},
    }
    control_plane = {"node-role.kubernetes.io/control-plane": ""}
    with there(cluster, service), machine(cluster, "preflight-cp", "v1.34.2"):
        label = {"metadata": {"labels": control_plane}}
        cluster.api.patch("/api/v1/nodes/preflight-cp", label)
        code, report = preflight(cluster)

    outcome, saw = told(report, "service-address")
    assert (code, outcome) == (1, "broken"), saw
    assert f"{NAMESPACE}/cart" in saw


def test_neighbours_are_found_by_what_they_run(cluster: LocalCluster) -> None:
    objects = [
        workload("DaemonSet", "nvidia-device-plugin", "mirror.example/k8s-device-plugin:v0.18.0"),
        workload("Deployment", "hami-scheduler", "mirror.example/projecthami/hami:v2.10.0"),
        workload("DaemonSet", "exporter", "mirror.example/nvidia/k8s/dcgm-exporter:4"),
    ]
    with there(cluster, *objects):
        code, report = preflight(cluster)

    assert code == 1
    assert told(report, "hami")[0] == "broken"
    assert told(report, "nvidia-plugin")[0] == "ok"
    assert "nvidia-device-plugin" in told(report, "nvidia-plugin")[1]
    assert (
        "dcgm" in told(report, "dcgm-exporter")[1] or "exporter" in told(report, "dcgm-exporter")[1]
    )


def test_neighbours_are_found_by_their_apis(cluster: LocalCluster) -> None:
    crds = [
        definition("kueue.x-k8s.io", "clusterqueues", "ClusterQueue"),
        definition("nvidia.com", "clusterpolicies", "ClusterPolicy"),
        definition("karpenter.sh", "nodepools", "NodePool"),
    ]
    # The groups are served a moment after their definitions are stored.
    with there(cluster, *crds):

        def served() -> Object | None:
            report = preflight(cluster)[1]
            names = ("kueue", "gpu-operator", "autoscaler")
            found = {told(report, name)[0] for name in names}
            return report if "not-applicable" not in found else None

        report = until(served, timeout=60, what="the groups of the definitions")

    assert told(report, "kueue")[0] == "ok"
    assert told(report, "autoscaler")[0] == "warning"


def test_a_device_class_that_stands_for_the_request_is_found(cluster: LocalCluster) -> None:
    device_class = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": "preflight.nvidia.com"},
        "spec": {"extendedResourceName": "nvidia.com/gpu"},
    }
    with there(cluster, device_class):
        kept = cluster.api.get("/apis/resource.k8s.io/v1/deviceclasses/preflight.nvidia.com")
        report = preflight(cluster)[1]

    # A server whose feature gate is off drops the field when it stores the class.
    expected = "warning" if "extendedResourceName" in kept["spec"] else "not-applicable"
    assert told(report, "dra")[0] == expected


def test_another_webhook_for_pods_is_found(cluster: LocalCluster) -> None:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    webhook = {
        "name": "sidecar.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "namespaceSelector": {"matchLabels": {"preflight": "never"}},
        "clientConfig": {"service": {"namespace": NAMESPACE, "name": "nobody"}},
        "rules": [rule],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "preflight-sidecar"},
        "webhooks": [webhook],
    }
    with there(cluster, configuration):
        report = preflight(cluster)[1]

    assert "preflight-sidecar" in told(report, "pod-webhooks")[1]


def test_somebody_without_rights_is_told_which_are_missing(cluster: LocalCluster) -> None:
    nobody = str(cluster.kubeconfig_for("preflight-nobody"))
    code, report = preflight(cluster, kubeconfig=nobody)

    outcome, saw = told(report, "rights")
    assert (code, outcome) == (1, "broken")
    assert "create namespaces" in saw
    assert "/api/v1/nodes" in report["unreadable"]


def test_the_dry_run_leaves_no_service(cluster: LocalCluster) -> None:
    with machine(cluster, "preflight-k0s", "v1.33.1+k0s"):
        report = preflight(cluster)[1]

    assert told(report, "service-address") == ("ok", "10.96.0.51 is free")
    assert "gpudetour-preflight" not in cluster.kubectl("get", "services", "-A", "-o", "name")


def test_a_server_that_does_not_answer_is_another_status() -> None:
    done = CliRunner().invoke(main, ["preflight", "--kubeconfig", "/nowhere/config"])

    assert done.exit_code == 2
    assert "kubeconfig" in done.stderr
