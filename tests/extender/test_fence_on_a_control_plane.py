"""The shipped policies on a real API server: what a leader of the past writes is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from extender.binding import handover
from extender.binding.handover import ConfigMap
from extender.leading.fence import Fence, Outdone
from extender.placement.facts import ClaimKey
from extender.placement.state import Reservation
from gpus.annotations import EPOCH
from gpus.model import Assignment, DeviceId, NodeName, PodUid
from kube.client import MERGE_PATCH, Client
from kube.connection import connect
from kube.errors import Conflict, Forbidden
from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.waiting import until
from tests.cluster.fence import ACCOUNT

pytestmark = pytest.mark.controlplane

NAMESPACE = "gpudetour-system"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
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
    """A client of the admin, on a cluster with the shipped objects in epoch 1."""
    admin = Client(connect(str(control_plane.admin_kubeconfig)))
    control_plane.apply(shipped.cluster_objects())
    begin(admin, 1)
    yield admin
    begin(admin, None)


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


def begin(admin: Client, epoch: int | str | None) -> None:
    """Write an epoch, whatever stands there."""
    metadata = {"annotations": {EPOCH: epoch if epoch is None else str(epoch)}}
    admin.patch(ACCOUNT, {"metadata": metadata}, content_type=MERGE_PATCH)


def claim(uid: PodUid) -> ClaimKey:
    """A device list of the pod's own: that of a pod before it is collected when its turn comes."""
    return ClaimKey(f"default/gpudetour-devices-{uid.replace('-', '')[:20]}")


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


def bind(client: Client, uid: PodUid, *, epoch: int, dry_run: bool = False) -> None:
    assignment = given(uid, epoch=epoch).assignment
    body = handover.binding(
        "fenced", namespace="default", uid=uid, node=NodeName("nowhere"), assignment=assignment
    )
    params = {"dryRun": "All"} if dry_run else {}
    client.create(handover.binding_path("default", "fenced"), body, params=params)


def test_a_new_leader_puts_its_epoch_in_force_and_ends_the_one_before(extender: Client) -> None:
    stop = threading.Event()
    fence = Fence(extender, namespace=NAMESPACE, timeout=30)

    assert fence.prove(1, stop=stop) is None
    assert fence.prove(2, stop=stop) is None
    assert fence.stands(2)
    with pytest.raises(Outdone, match="epoch 2 has begun already"):
        fence.prove(1, stop=stop)


@pytest.mark.parametrize("garbage", [None, "", "-1", "x" * 1000, "9" * 5000, "2147483647", "0x7"])
def test_what_nobody_can_have_begun_is_written_over(
    admin: Client, extender: Client, garbage: str | None
) -> None:
    begin(admin, garbage)
    fence = Fence(extender, namespace=NAMESPACE, timeout=30)

    # Until it may read, it cannot say so.
    until(lambda: not fence.stands(3), timeout=30, what="the rights of the extender")
    assert fence.prove(3, stop=threading.Event()) is None
    assert fence.stands(3)


def test_a_policy_that_was_deleted_is_in_force_again_when_it_comes_back(
    control_plane: LocalCluster, admin: Client, extender: Client
) -> None:
    stop = threading.Event()
    patient = Fence(extender, namespace=NAMESPACE, timeout=30)
    assert patient.prove(4, stop=stop) is None
    for path in ("ies/gpudetour-fence", "ybindings/gpudetour-fence"):
        admin.delete(POLICIES + path)
    hasty = Fence(extender, namespace=NAMESPACE, timeout=0.1)
    missing = "lets Bindings of epoch 4 pass in epoch 5"
    until(lambda: missing in (hasty.prove(5, stop=stop) or ""), timeout=30, what="no fence")

    control_plane.apply(shipped.cluster_objects())

    assert patient.prove(6, stop=stop) is None
    assert patient.prove(7, stop=stop) is None


def test_a_leader_of_the_past_can_neither_bind_nor_hand_devices_over(
    admin: Client, extender: Client, pod: PodUid
) -> None:
    assert Fence(extender, namespace=NAMESPACE, timeout=30).prove(7, stop=threading.Event()) is None

    with pytest.raises(Forbidden, match="no longer the leader"):
        extender.create(CONFIG_MAPS, handover.config_map(given(pod, epoch=6), claim(pod)))
    with pytest.raises(Forbidden, match="no longer the leader"):
        bind(extender, pod, epoch=6)

    extender.create(CONFIG_MAPS, handover.config_map(given(pod, epoch=7), claim(pod)))
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
    path = f"/api/v1/namespaces/{claim(pod).replace('/', '/configmaps/')}"
    assert Fence(extender, namespace=NAMESPACE, timeout=30).prove(1, stop=threading.Event()) is None
    extender.create(CONFIG_MAPS, handover.config_map(given(pod, epoch=1), claim(pod)))
    found = extender.get(path, type=ConfigMap)

    assert (handover.owner_of(found), handover.told_by(found)) == (pod, {"main": ("GPU-0",)})
    with pytest.raises(Conflict):
        extender.delete(path, uid="another")
    extender.delete(path, uid=found.metadata.uid)


def test_nobody_else_may_assign(admin: Client, extender: Client, pod: PodUid) -> None:
    assert Fence(extender, namespace=NAMESPACE, timeout=30).prove(1, stop=threading.Event()) is None

    def refused() -> bool:
        try:
            bind(admin, pod, epoch=1, dry_run=True)
        except Forbidden:
            return True
        return False

    # Another policy than the fence, of which the API server may learn later.
    until(refused, timeout=30, what="a refusal")
    with pytest.raises(Forbidden, match="only gpudetour's extender"):
        bind(admin, pod, epoch=1)
