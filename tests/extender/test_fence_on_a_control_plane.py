"""The shipped policies on a real API server: what a leader of the past writes is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from extender.binding import handover
from extender.binding.handover import ConfigMap
from extender.leading.fence import Fence
from extender.placement.facts import ClaimKey
from extender.placement.state import Reservation
from gpus.model import Assignment, DeviceId, NodeName, PodUid
from kube.client import MERGE_PATCH, Client
from kube.connection import connect
from kube.errors import Conflict, Forbidden
from localcluster import shipped
from localcluster.cluster import LocalCluster

pytestmark = pytest.mark.controlplane

NAMESPACE = "gpudetour-system"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
LEASE = f"{LEASES}/gpudetour-extender"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
CLAIM = ClaimKey("default/gpudetour-devices-00000000000000fenced")
POD = {
    "metadata": {"name": "fenced"},
    "spec": {
        "schedulerName": "nobody",
        "automountServiceAccountToken": False,
        "containers": [{"name": "main", "image": "example.org/image"}],
    },
}


@pytest.fixture
def admin(control_plane: LocalCluster) -> Iterator[Client]:
    """A client of the admin, on a cluster with the shipped objects and a Lease of epoch 1."""
    admin = Client(connect(str(control_plane.admin_kubeconfig)))
    control_plane.apply(shipped.cluster_objects())
    spec = {"holderIdentity": "somebody", "leaseTransitions": 1}
    admin.create(LEASES, {"metadata": {"name": "gpudetour-extender"}, "spec": spec})
    yield admin
    admin.delete(LEASE)


@pytest.fixture
def extender(control_plane: LocalCluster, admin: Client) -> Client:
    """A client with the rights of the extender and no others."""
    del admin
    kubeconfig = control_plane.service_account_kubeconfig(NAMESPACE, "gpudetour-extender")
    return Client(connect(str(kubeconfig)))


@pytest.fixture
def pod(admin: Client) -> Iterator[PodUid]:
    """A pod that waits to be bound."""
    created = admin.create("/api/v1/namespaces/default/pods", POD)
    yield PodUid(created["metadata"]["uid"])
    admin.delete("/api/v1/namespaces/default/pods/fenced", params={"gracePeriodSeconds": "0"})


def lead(admin: Client, epoch: int) -> None:
    admin.patch(LEASE, {"spec": {"leaseTransitions": epoch}}, content_type=MERGE_PATCH)


def given(uid: PodUid, *, epoch: int) -> Reservation:
    containers = {"main": (DeviceId("GPU-0"),)}
    return Reservation(
        uid=uid,
        namespace="default",
        name="fenced",
        node=NodeName("nowhere"),
        totals={},
        assignment=Assignment(epoch=epoch, containers=containers),
        since=0.0,
    )


def bind(client: Client, uid: PodUid, *, epoch: int) -> None:
    assignment = given(uid, epoch=epoch).assignment
    body = handover.binding(
        "fenced", namespace="default", uid=uid, node=NodeName("nowhere"), assignment=assignment
    )
    client.create(handover.binding_path("default", "fenced"), body)


def test_the_fence_is_proven_in_the_epoch_of_the_lease_and_in_no_other(
    admin: Client, extender: Client
) -> None:
    stop = threading.Event()
    patient = Fence(extender, namespace=NAMESPACE, timeout=20)
    hasty = Fence(extender, namespace=NAMESPACE, timeout=0.2)

    assert patient.prove(1, stop=stop) is None
    assert "lets Bindings of epoch 1 pass in epoch 2" in (hasty.prove(2, stop=stop) or "")
    assert "refuses Bindings of epoch 9" in (hasty.prove(9, stop=stop) or "")
    lead(admin, 2)
    assert patient.prove(2, stop=stop) is None


def test_a_leader_of_the_past_can_neither_bind_nor_hand_devices_over(
    admin: Client, extender: Client, pod: PodUid
) -> None:
    lead(admin, 7)
    assert Fence(extender, namespace=NAMESPACE, timeout=20).prove(7, stop=threading.Event()) is None

    with pytest.raises(Forbidden, match="no longer the leader"):
        extender.create(CONFIG_MAPS, handover.config_map(given(pod, epoch=6), CLAIM))
    with pytest.raises(Forbidden, match="no longer the leader"):
        bind(extender, pod, epoch=6)

    extender.create(CONFIG_MAPS, handover.config_map(given(pod, epoch=7), CLAIM))
    bind(extender, pod, epoch=7)
    with pytest.raises(Conflict):
        bind(extender, pod, epoch=7)
    stored = admin.get("/api/v1/namespaces/default/pods/fenced")
    assert stored["spec"]["nodeName"] == "nowhere"
    assert stored["metadata"]["annotations"]["gpudetour.io/assigned"].startswith(
        '{"v":1,"epoch":7,'
    )


def test_a_config_map_is_deleted_only_while_it_is_the_one_that_was_read(
    extender: Client, pod: PodUid
) -> None:
    path = f"/api/v1/namespaces/{CLAIM.replace('/', '/configmaps/')}"
    assert Fence(extender, namespace=NAMESPACE, timeout=20).prove(1, stop=threading.Event()) is None
    extender.create(CONFIG_MAPS, handover.config_map(given(pod, epoch=1), CLAIM))
    found = extender.get(path, type=ConfigMap)

    assert (handover.owner_of(found), handover.told_by(found)) == (pod, {"main": ("GPU-0",)})
    with pytest.raises(Conflict):
        extender.delete(path, uid="another")
    extender.delete(path, uid=found.metadata.uid)


def test_nobody_else_may_assign(admin: Client, extender: Client, pod: PodUid) -> None:
    assert Fence(extender, namespace=NAMESPACE, timeout=20).prove(1, stop=threading.Event()) is None

    with pytest.raises(Forbidden, match="only gpudetour's extender"):
        bind(admin, pod, epoch=1)
