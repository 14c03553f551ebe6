"""Who tries to take a GPU by what is written on pods, Bindings and ConfigMaps; no webhook runs."""

from __future__ import annotations

import pytest

from tests.manifests.attempts import Attempt, allowed, refused, rows
from tests.manifests.door import JSON_PATCH, Object, Request
from tests.manifests.guarded import (
    DEVICES,
    EPOCH,
    HELD,
    NODES,
    TEAM,
    Guarded,
    assigned,
    binding,
    changed,
    config_maps,
    device_list,
    gpu_pod,
    plain_pod,
    pods,
)

pytestmark = pytest.mark.controlplane

ASSIGN, FENCE, KEEP, PODS = (
    "gpudetour-assign",
    "gpudetour-fence",
    "gpudetour-keep-configmaps",
    "gpudetour-pods",
)
IMMUTABLE = (
    f'ConfigMap "{DEVICES}" is invalid: data: Forbidden: field is immutable when `immutable` is set'
)
ASSIGNED = {"gpudetour.io/assigned": assigned()}
OTHER_LIST = f"gpudetour-devices-{'o' * 20}"


def create(pod: Object) -> Request:
    return Request(method="POST", path=pods(), body=pod)


def annotate(name: str, subresource: str = "", **annotations: str | None) -> Request:
    """A merge patch of annotations of ours; `devices_from` is gpudetour.io/devices-from."""
    named = {f"gpudetour.io/{key.replace('_', '-')}": annotations[key] for key in annotations}
    path = f"{pods()}/{name}{subresource}"
    return Request(method="PATCH", path=path, body={"metadata": {"annotations": named}})


def label(name: str, value: str | None) -> Request:
    body = {"metadata": {"labels": {"gpudetour.io/gpu": value}}}
    return Request(method="PATCH", path=f"{pods()}/{name}", body=body)


def bind(name: str, body: Object) -> Request:
    return Request(method="POST", path=f"{pods()}/{name}/binding", body=body)


def make_list(body: Object) -> Request:
    return Request(method="POST", path=config_maps(), body=body)


def the_list(method: str, body: object = None, *, kind: str = "") -> Request:
    return Request(method=method, path=f"{config_maps()}/{DEVICES}", body=body, kind=kind)


def evict(**metadata: object) -> Request:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": HELD, **metadata}}
    return Request(method="POST", path=f"{pods()}/{HELD}/eviction", body=body)


def named(pod: Object, **fields: object) -> Object:
    pod["metadata"] |= fields
    return pod


LABELLED = {"gpudetour.io/gpu": "true"}
ORPHANED = {"metadata": {"ownerReferences": None}}

ATTACKS = {
    "A1 forged at creation": [
        refused(
            "gpu pod", "user", create(changed(gpu_pod("forger"), annotations=ASSIGNED)), by=PODS
        ),
        refused(
            "other pod", "user", create(changed(plain_pod("forger"), annotations=ASSIGNED)), by=PODS
        ),
        refused(
            "even so",
            "cluster-admin",
            create(changed(plain_pod("forger"), annotations=ASSIGNED)),
            by=PODS,
        ),
        allowed("without it", "user", create(gpu_pod("honest"))),
    ],
    "A2 edited later": [
        refused("given", "user", annotate("waiting", assigned=assigned()), by=PODS),
        refused("given to another", "user", annotate("plain", assigned=assigned()), by=PODS),
        refused("changed", "user", annotate(HELD, assigned=assigned(EPOCH + 1)), by=PODS),
        refused("removed", "user", annotate(HELD, assigned=None), by=PODS),
        refused("removed", "cluster-admin", annotate(HELD, assigned=None), by=PODS),
        refused(
            "by the status", "cluster-admin", annotate(HELD, "/status", assigned=None), by=PODS
        ),
        refused("another list", "user", annotate(HELD, devices_from=OTHER_LIST), by=PODS),
        refused("no list", "user", annotate(HELD, devices_from=None), by=PODS),
        refused("more wishes", "user", annotate(HELD, product="*H200*"), by=PODS),
        allowed("own note", "user", annotate(HELD, note="x")),
        allowed("own note in the status", "cluster-admin", annotate(HELD, "/status", note="x")),
    ],
    "A2 device lists": [
        refused("made", "user", make_list(device_list(OTHER_LIST)), by=FENCE),
        refused("made", "cluster-admin", make_list(device_list(OTHER_LIST)), by=FENCE),
        refused(
            "made by a random name",
            "user",
            make_list(
                {"metadata": {"generateName": "gpudetour-devices-"}, "data": {"main": "all"}}
            ),
            by=ASSIGN,
        ),
        refused("edited", "user", the_list("PATCH", {"metadata": {"labels": None}}), by=KEEP),
        refused("data edited", "user", the_list("PATCH", {"data": {"main": "all"}}), by=IMMUTABLE),
        refused("data edited", "extender", the_list("PATCH", {"data": {"main": "all"}}), by="RBAC"),
        refused("disowned", "user", the_list("PATCH", ORPHANED), by=KEEP),
        refused(
            "relabelled",
            "garbage-collector",
            the_list(
                "PATCH",
                {"metadata": {"labels": {}, "annotations": {"gpudetour.io/assigned": None}}},
            ),
            by=KEEP,
        ),
        refused("deleted", "user", the_list("DELETE"), by=KEEP),
        refused("deleted", "cluster-admin", the_list("DELETE"), by=KEEP),
        refused(
            "all deleted",
            "user",
            Request(method="DELETE", path=config_maps(), query="labelSelector=gpudetour.io/gpu"),
            by=KEEP,
        ),
        allowed("made", "extender", make_list(device_list(OTHER_LIST))),
        allowed("deleted", "extender", the_list("DELETE")),
        allowed("deleted", "garbage-collector", the_list("DELETE")),
        allowed("disowned", "garbage-collector", the_list("PATCH", ORPHANED)),
        allowed("ordinary one", "user", make_list({"metadata": {"name": "own"}})),
    ],
    "bindings": [
        refused("of a user", "user", bind("waiting", binding("waiting")), by="RBAC"),
        refused("of a leader", "other-scheduler", bind("waiting", binding("waiting")), by=FENCE),
        refused(
            "with a list",
            "other-scheduler",
            bind(
                "waiting", binding("waiting", epoch=None, **{"gpudetour.io/devices-from": DEVICES})
            ),
            by=ASSIGN,
        ),
        refused(
            "of an old epoch",
            "extender",
            bind("waiting", binding("waiting", epoch=EPOCH - 1)),
            by=FENCE,
        ),
        refused(
            "of a coming epoch",
            "extender",
            bind("waiting", binding("waiting", epoch=EPOCH + 1)),
            by=FENCE,
        ),
        refused(
            "of no epoch", "extender", bind("waiting", binding("waiting", epoch=None)), by=ASSIGN
        ),
        refused(
            "list of an old epoch",
            "extender",
            make_list(device_list(OTHER_LIST, epoch=EPOCH - 1)),
            by=FENCE,
        ),
        refused("eviction of no epoch", "extender", evict(), by=ASSIGN),
        refused(
            "eviction of an old epoch",
            "extender",
            evict(labels=LABELLED, annotations={"gpudetour.io/assigned": assigned(EPOCH - 1)}),
            by=FENCE,
        ),
        allowed("of the leader", "extender", bind("waiting", binding("waiting"))),
        allowed(
            "of a pod without gpus", "other-scheduler", bind("plain", binding("plain", epoch=None))
        ),
        allowed(
            "eviction of the leader",
            "extender",
            evict(labels=LABELLED, annotations=ASSIGNED),
        ),
        allowed("eviction of an admin", "cluster-admin", evict()),
    ],
    "the extender's rights on others": [
        refused("ConfigMap made", "extender", make_list({"metadata": {"name": "own"}}), by=ASSIGN),
        refused(
            "ConfigMap deleted",
            "extender",
            Request(method="DELETE", path=f"{config_maps()}/kube-root-ca.crt"),
            by=KEEP,
        ),
        allowed(
            "ConfigMap deleted",
            "user",
            Request(method="DELETE", path=f"{config_maps()}/kube-root-ca.crt"),
        ),
    ],
    "A3 another scheduler": [
        refused("bound by its owner", "user", bind("waiting", binding("waiting")), by="RBAC"),
        refused(
            "without the label",
            "user",
            create(changed(gpu_pod("own", schedulerName="own"), labels={"gpudetour.io/gpu": "x"})),
            by="gpudetour-admitted",
        ),
        # It counts by its label: tests/cluster/test_unclear_holder.py.
        allowed("with the label", "user", create(gpu_pod("own", schedulerName="own"))),
    ],
    "A4 tied to a node": [
        refused("gpu pod", "user", create(gpu_pod("tied", nodeName=NODES[0])), by=PODS),
        refused(
            "as a mirror",
            "user",
            create(
                changed(
                    gpu_pod("tied", nodeName=NODES[0], automountServiceAccountToken=False),
                    annotations={"kubernetes.io/config.mirror": "x"},
                )
            ),
            by=PODS,
        ),
        allowed("pod without gpus", "user", create(plain_pod("tied", nodeName=NODES[0]))),
    ],
    "A11 opted out by label": [
        refused(
            "at creation",
            "user",
            create(changed(gpu_pod("shy"), labels={"gpudetour.io/gpu": "false"})),
            by="gpudetour-admitted",
        ),
        refused("removed", "user", label(HELD, None), by=PODS),
        refused("changed", "user", label(HELD, "false"), by=PODS),
        refused("changed", "cluster-admin", label(HELD, ""), by=PODS),
        refused(
            "by a JSON patch",
            "user",
            Request(
                method="PATCH",
                path=f"{pods()}/{HELD}",
                body=[{"op": "remove", "path": "/metadata/labels/gpudetour.io~1gpu"}],
                kind=JSON_PATCH,
            ),
            by=PODS,
        ),
        refused(
            "of the namespace",
            "user",
            Request(
                method="PATCH",
                path=f"/api/v1/namespaces/{TEAM}",
                body={"metadata": {"labels": {"gpudetour.io/monitoring": "true"}}},
            ),
            by="RBAC",
        ),
        refused(
            "into a namespace left alone",
            "user",
            Request(method="POST", path=pods("kube-system"), body=gpu_pod("away")),
            by="RBAC",
        ),
        allowed("the same again", "user", label(HELD, "true")),
        allowed(
            "own label",
            "user",
            Request(
                method="PATCH", path=f"{pods()}/{HELD}", body={"metadata": {"labels": {"own": "x"}}}
            ),
        ),
    ],
}


@pytest.mark.parametrize("attempt", rows(ATTACKS))
def test_the_api_server_tells_attacks_from_what_is_due(guard: Guarded, attempt: Attempt) -> None:
    assert guard.told(attempt.who, attempt.request) == attempt.by


@pytest.mark.parametrize("subresource", ["resize", "ephemeralcontainers"])
def test_other_ways_to_write_a_pod_leave_its_annotations_and_labels_alone(
    guard: Guarded, subresource: str
) -> None:
    change = {"annotations": {"gpudetour.io/assigned": None}, "labels": {"gpudetour.io/gpu": None}}
    path = f"{pods()}/{HELD}"
    before = guard.cluster.api.get(path)["metadata"]

    answer = guard.door.ask(
        guard.people["cluster-admin"],
        Request(method="PATCH", path=f"{path}/{subresource}", body={"metadata": change}),
    )

    assert answer.by == ""
    after = answer.told["metadata"]
    assert [before[field] for field in change] == [after[field] for field in change]
