"""Pod Security Admission on a real API server: the control parts pass its level "restricted"."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from localcluster import shipped
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.shipped import Variant
from localcluster.stack import AGENT

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

CLOSED = "restricted-pods"
PODS = f"/api/v1/namespaces/{CLOSED}/pods"
KINDS = ("Deployment", "DaemonSet")
WORKLOADS = {
    f"{item['metadata']['name']}, {variant}": item
    for variant in Variant
    for item in shipped.objects(*KINDS, variant=variant)
}


@pytest.fixture(scope="module")
def closed(control_plane: LocalCluster) -> Iterator[LocalCluster]:
    """A cluster with a namespace that takes no others."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api = control_plane.api
    api.create("/api/v1/namespaces", {"metadata": {"name": CLOSED, "labels": labels}})
    control_plane.wait_for(f"/api/v1/namespaces/{CLOSED}/serviceaccounts/default", bool)
    yield control_plane
    api.delete(f"/api/v1/namespaces/{CLOSED}")


def pod_of(workload: Object) -> Object:
    """What its controller would create, with the account that this namespace has."""
    pod = copy.deepcopy(workload["spec"]["template"])
    pod["metadata"] |= {"name": workload["metadata"]["name"]}
    pod["spec"]["serviceAccountName"] = "default"
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def refusal(cluster: LocalCluster, pod: Object) -> str:
    """What the API server says against it; empty when it would be stored."""
    try:
        cluster.api.create(f"{PODS}?dryRun=All", pod)
    except ApiError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [name for name in WORKLOADS if not name.startswith(AGENT)])
def test_a_control_part_may_run_where_only_restricted_pods_may(
    name: str, closed: LocalCluster
) -> None:
    assert refusal(closed, pod_of(WORKLOADS[name])) == ""


def test_the_agent_may_not_for_it_needs_the_host(closed: LocalCluster) -> None:
    said = refusal(closed, pod_of(WORKLOADS[f"{AGENT}, {Variant.BASE}"]))

    assert 'violates PodSecurity "restricted' in said
    for reason in ("privileged", "hostPath"):
        assert reason in said


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_root_folder_can_be_written(name: str) -> None:
    for container in WORKLOADS[name]["spec"]["template"]["spec"]["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("variant", list(Variant))
def test_a_token_is_mounted_only_where_one_is_asked_for(variant: Variant) -> None:
    for account in shipped.objects("ServiceAccount", variant=variant):
        assert account["automountServiceAccountToken"] is False


def test_of_the_host_the_agent_may_write_what_it_must_and_no_more() -> None:
    spec = WORKLOADS[f"{AGENT}, {Variant.BASE}"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    folders = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"]}

    written = {folders[m["name"]] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert written == {"/dev", "/var/lib/kubelet/device-plugins", "/var/run/cdi"}
