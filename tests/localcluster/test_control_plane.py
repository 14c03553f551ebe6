"""The real control plane, shared by these tests."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml

from localcluster.api import ApiError, Object
from localcluster.cluster import KubectlError, LocalCluster
from localcluster.parts.catalogue import KUBERNETES
from localcluster.simulated import NodeTemplate
from localcluster.waiting import WaitedTooLong

pytestmark = pytest.mark.controlplane

PODS = "/api/v1/namespaces/default/pods"


def pod(name: str, *, image: str = "example.invalid/none:1", **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
    }


def is_running(found: Object) -> bool:
    return bool(found["status"]["phase"] == "Running")


def test_it_is_the_version_that_was_asked_for(control_plane: LocalCluster) -> None:
    versions = json.loads(control_plane.kubectl("version", "--output=json"))

    assert versions["serverVersion"]["gitVersion"] == f"v{KUBERNETES}"
    assert versions["clientVersion"]["gitVersion"] == f"v{KUBERNETES}"


def test_users_have_the_names_and_groups_that_they_were_given(control_plane: LocalCluster) -> None:
    kubeconfig = control_plane.kubeconfig_for("jane", ["dev"])

    told = control_plane.kubectl("auth", "whoami", "--output=json", f"--kubeconfig={kubeconfig}")

    user = json.loads(told)["status"]["userInfo"]
    assert user["username"] == "jane"
    assert user["groups"] == ["dev", "system:authenticated"]


def test_users_have_no_rights_but_those_they_are_given(control_plane: LocalCluster) -> None:
    kubeconfig = control_plane.kubeconfig_for("nobody-in-particular")

    with pytest.raises(KubectlError, match="Forbidden"):
        control_plane.kubectl("get", "nodes", f"--kubeconfig={kubeconfig}")


def test_a_node_may_not_write_another_node(control_plane: LocalCluster) -> None:
    control_plane.create_simulated_nodes(["restricted-a", "restricted-b"])
    kubeconfig = control_plane.kubeconfig_for("system:node:restricted-a", ["system:nodes"])
    identity, label = f"--kubeconfig={kubeconfig}", "example.com/mine=yes"

    control_plane.kubectl("label", "node", "restricted-a", label, identity)
    with pytest.raises(KubectlError, match="Forbidden"):
        control_plane.kubectl("label", "node", "restricted-b", label, identity)


def test_a_service_account_token_carries_the_node_that_it_is_bound_to(
    control_plane: LocalCluster,
) -> None:
    control_plane.create_simulated_nodes(["token-node"])

    bound = control_plane.service_account_kubeconfig("default", "default", node="token-node")
    free = control_plane.service_account_kubeconfig("default", "default")

    assert claims(bound)["node"]["name"] == "token-node"
    assert "node" not in claims(free)
    assert bound != free
    assert bound.stat().st_mode & 0o777 == 0o600
    told = control_plane.kubectl("auth", "whoami", "--output=json", f"--kubeconfig={bound}")
    user = json.loads(told)["status"]["userInfo"]
    assert user["username"] == "system:serviceaccount:default:default"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == ["token-node"]


def claims(kubeconfig: Path) -> Object:
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
    payload = token.split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert decoded["exp"] - decoded["iat"] >= 4 * 3600
    found = decoded["kubernetes.io"]
    assert isinstance(found, dict)
    return found


def test_pods_come_to_run_on_simulated_nodes(control_plane: LocalCluster) -> None:
    template = NodeTemplate(
        capacity={"cpu": "8", "memory": "32Gi", "pods": "20", "example.com/thing": "1"},
        labels={"example.com/kind": "test"},
    )
    control_plane.create_simulated_nodes(["runs-pods"], template)
    wants = {"resources": {"limits": {"example.com/thing": "1"}}}
    asking = pod("simulated")
    asking["spec"]["containers"][0] |= wants

    control_plane.apply([asking])

    running = control_plane.wait_for(f"{PODS}/simulated", is_running)
    assert running["spec"]["nodeName"] == "runs-pods"
    assert running["status"]["containerStatuses"][0]["ready"] is True
    control_plane.kubectl("delete", "pod", "simulated", "--timeout=20s")
    with pytest.raises(ApiError, match="404"):
        control_plane.api.get(f"{PODS}/simulated")


def test_a_job_completes_on_a_simulated_node(control_plane: LocalCluster) -> None:
    control_plane.create_simulated_nodes(["runs-jobs"])
    template = {"spec": {**pod("-")["spec"], "restartPolicy": "Never"}}
    metadata = {"name": "short", "namespace": "default"}
    control_plane.apply(
        [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": metadata,
                "spec": {"template": template},
            }
        ]
    )

    control_plane.wait_for(
        "/apis/batch/v1/namespaces/default/jobs/short",
        lambda job: job["status"].get("succeeded") == 1,
    )


def test_simulated_nodes_renew_their_leases(control_plane: LocalCluster) -> None:
    control_plane.create_simulated_nodes(["renews"])

    lease = control_plane.wait_for(
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/renews", bool
    )

    assert lease["spec"]["leaseDurationSeconds"] == 40


def test_the_scheduler_can_be_stopped_and_run_with_another_configuration(
    control_plane: LocalCluster, tmp_path: Path
) -> None:
    control_plane.create_simulated_nodes(["for-the-other-scheduler"])
    config = tmp_path / "scheduler.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "leaderElection": {"leaderElect": False},
                "profiles": [{"schedulerName": "another"}],
            }
        )
    )
    control_plane.stop_scheduler()
    control_plane.apply([pod("by-another", schedulerName="another"), pod("by-default")])
    try:
        control_plane.restart_scheduler(config)
        control_plane.wait_for(f"{PODS}/by-another", is_running)
        assert "nodeName" not in control_plane.api.get(f"{PODS}/by-default")["spec"]
    finally:
        control_plane.stop_scheduler()
        control_plane.restart_scheduler()
    control_plane.wait_for(f"{PODS}/by-default", is_running)


def test_waiting_in_vain_tells_what_is_there(control_plane: LocalCluster) -> None:
    with pytest.raises(WaitedTooLong, match="Active"):
        control_plane.wait_for("/api/v1/namespaces/default", lambda _found: False, timeout=0.1)
    with pytest.raises(WaitedTooLong, match="there is nothing"):
        control_plane.wait_for("/api/v1/namespaces/missing", bool, timeout=0.1)


def test_files_and_objects_are_applied(control_plane: LocalCluster, tmp_path: Path) -> None:
    file = tmp_path / "map.yaml"
    file.write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: from-file, namespace: default}}"
    )
    given = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "from-object", "namespace": "default"},
    }

    control_plane.apply([file, given])

    maps = control_plane.api.get("/api/v1/namespaces/default/configmaps")["items"]
    assert {"from-file", "from-object"} <= {found["metadata"]["name"] for found in maps}


def test_a_refused_request_is_told_with_status_and_reason(control_plane: LocalCluster) -> None:
    with pytest.raises(ApiError) as refusal:
        control_plane.api.create(PODS, {"apiVersion": "v1", "kind": "Pod"})

    assert refusal.value.status == 422
    assert refusal.value.reason == "Invalid"
