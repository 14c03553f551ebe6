"""The extender's Deployment in the hands of the real controllers: new releases, and nodes that are
drained. Who is ready is said in kubelet's place, as the shipped probes would have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localcluster import shipped
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.shipped import Variant
from localcluster.stack import EXTENDER, NAMESPACE
from localcluster.waiting import until

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{EXTENDER}"
NODE = "upgraded"
#: In the base only the leader is ready, that is one; beside a scheduler all that run are.
READY_AT_ONCE = {Variant.BASE: 1, Variant.SECOND_SCHEDULER: 99}


class Kubelet:
    """Says of the extender's pods which are ready, and ends those that shall end."""

    def __init__(self, cluster: LocalCluster, variant: Variant) -> None:
        self._api = cluster.api
        self._at_once = READY_AT_ONCE[variant]

    def look(self) -> list[Object]:
        """Do what is to be done now; return the pods that are ready."""
        pods = self._pods()
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                self._api.delete(f"{PODS}/{pod['metadata']['name']}", grace_seconds=0)
        here = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        ready = [pod for pod in here if is_ready(pod)]
        for pod in [pod for pod in here if not is_ready(pod)][: self._at_once - len(ready)]:
            conditions = [{"type": "Ready", "status": "True"}]
            status = {"status": {"phase": "Running", "conditions": conditions}}
            self._api.patch(f"{PODS}/{pod['metadata']['name']}/status", status)
        return [pod for pod in self._pods() if is_ready(pod)]

    def until(self, what: str, predicate: Callable[[], bool]) -> None:
        """Go on until `predicate` holds."""

        def probe() -> bool:
            self.look()
            return predicate()

        until(probe, timeout=90, what=what)

    def _pods(self) -> list[Object]:
        selector = f"app.kubernetes.io/name={EXTENDER}"
        pods = self._api.get(PODS, labelSelector=selector)["items"]
        running = [pod for pod in pods if pod["spec"].get("nodeName") == NODE]
        return sorted(running, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any((c["type"], c["status"]) == ("Ready", "True") for c in conditions)


@pytest.fixture(params=list(Variant))
def variant(request: pytest.FixtureRequest, control_plane: LocalCluster) -> Iterator[Variant]:
    """The Deployment and its budget, if it has one, on a node of their own."""
    variant: Variant = request.param
    kinds = ("Namespace", "ServiceAccount", "Deployment", "PodDisruptionBudget")
    objects = [
        item
        for item in shipped.objects(*kinds, variant=variant)
        if item["metadata"]["name"] in (NAMESPACE, EXTENDER)
    ]
    (deployment,) = (item for item in objects if item["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"kubernetes.io/hostname": NODE}
    # Nobody keeps the node alive, and on a slow machine it is tainted before all is done.
    spec["tolerations"] = [{"operator": "Exists"}]
    control_plane.create_bare_nodes([NODE])
    control_plane.apply(objects)
    yield variant
    for item in objects:
        if item["kind"] in ("Deployment", "PodDisruptionBudget"):
            kind, name = item["kind"], item["metadata"]["name"]
            # In the foreground, so that nothing creates pods any more when the Deployment is gone.
            options = ("-n", NAMESPACE, "--cascade=foreground", "--wait=false")
            control_plane.kubectl("delete", kind, name, *options)

    def none_left() -> bool:
        left = ("-n", NAMESPACE, "-l", f"app.kubernetes.io/name={EXTENDER}")
        control_plane.kubectl("delete", "pods", *left, "--force", "--grace-period=0")
        deployments = control_plane.api.get(DEPLOYMENT.removesuffix(f"/{EXTENDER}"))["items"]
        return not any(found["metadata"]["name"] == EXTENDER for found in deployments)

    until(none_left, timeout=120, what="no Deployment of the extender")
    control_plane.api.delete(f"/api/v1/nodes/{NODE}")


@pytest.fixture
def kubelet(control_plane: LocalCluster, variant: Variant) -> Kubelet:
    """Two replicas run, and as many are ready as can be."""
    kubelet = Kubelet(control_plane, variant)
    wanted = min(2, READY_AT_ONCE[variant])

    def settled() -> bool:
        status = control_plane.api.get(DEPLOYMENT).get("status", {})
        found = status.get("replicas"), status.get("readyReplicas")
        return found == (2, wanted)

    kubelet.until("two replicas", settled)
    return kubelet


def test_a_new_release_replaces_all_replicas(control_plane: LocalCluster, kubelet: Kubelet) -> None:
    template = {"metadata": {"annotations": {"release": str(time.time())}}}
    changed = control_plane.api.patch(DEPLOYMENT, {"spec": {"template": template}})

    def rolled_out() -> bool:
        status = control_plane.api.get(DEPLOYMENT)["status"]
        seen = status["observedGeneration"] == changed["metadata"]["generation"]
        return seen and (status["replicas"], status.get("updatedReplicas")) == (2, 2)

    kubelet.until("the rollout", rolled_out)


def test_the_leaders_node_can_be_drained(control_plane: LocalCluster, kubelet: Kubelet) -> None:
    name = kubelet.look()[0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}

    def evicted() -> bool:
        try:
            control_plane.api.create(f"{PODS}/{name}/eviction", eviction)
        except ApiError as error:
            if error.status == 429:  # the budget's controller may not have counted yet
                return False
            raise
        return True

    kubelet.until("the eviction of the first", evicted)
