"""Pods that reach devices by another way than asking for them: annotations of CDI, lists of devices
as mounts, and the host itself.
"""

from __future__ import annotations

import pytest

from tests.manifests.attempts import Attempt, allowed, refused, rows
from tests.manifests.door import Object, Request
from tests.manifests.guarded import (
    CLOSED,
    HELD,
    TEAM,
    WARNED,
    Guarded,
    changed,
    gpu_pod,
    plain_pod,
    pods,
)

pytestmark = pytest.mark.controlplane

DEVICES, HOST = "gpudetour-devices", "gpudetour-host-access"


def create(pod: Object, namespace: str = TEAM) -> Request:
    return Request(method="POST", path=pods(namespace), body=pod)


def with_cdi(device: str, key: str = "cdi.k8s.io/mine") -> Object:
    return changed(plain_pod("cdi"), annotations={key: device})


def annotate(name: str, **annotations: str) -> Request:
    body = {
        "metadata": {"annotations": {f"cdi.k8s.io/{key}": annotations[key] for key in annotations}}
    }
    return Request(method="PATCH", path=f"{pods()}/{name}", body=body)


def listing(mount: str, *, init: bool = False) -> Object:
    """A pod that mounts a file of the host there, as the runtime wants it of a list of devices."""
    pod = plain_pod("lists", volumes=[{"name": "none", "hostPath": {"path": "/dev/null"}}])
    (container,) = pod["spec"]["containers"]
    mounts = [{"name": "none", "mountPath": mount}]
    if init:
        pod["spec"]["initContainers"] = [{**container, "name": "init", "volumeMounts": mounts}]
    else:
        container["volumeMounts"] = mounts
    return pod


def on_host(path: str) -> Object:
    return plain_pod("host", volumes=[{"name": "host", "hostPath": {"path": path}}])


def secured(context: Object, *, field: str = "containers") -> Object:
    pod = plain_pod("secured")
    (container,) = pod["spec"]["containers"]
    secured = {**container, "name": "secured", "securityContext": context}
    pod["spec"][field] = [*pod["spec"].get(field, []), secured]
    return pod


def capable(*names: str) -> Object:
    return secured({"capabilities": {"add": [*names]}})


def debug(namespace: str, name: str, **container: object) -> Request:
    """What `kubectl debug` sends."""
    added = {"name": "debug", "image": "box", **container}
    path = f"{pods(namespace)}/{name}/ephemeralcontainers"
    kind = "application/strategic-merge-patch+json"
    body = {"spec": {"ephemeralContainers": [added]}}
    return Request(method="PATCH", path=path, body=body, kind=kind)


def closed(pod: Object) -> Request:
    return create(pod, CLOSED)


PRIVILEGED = {"privileged": True}
MOUNTS = "/var/run/nvidia-container-devices"
BACKSTEPS = (
    'Pod "host" is invalid: spec.volumes[0].hostPath.path: Invalid value: "/data/../dev": must '
    "not contain '..'"
)
VOID = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]

ATTACKS = {
    "A7 a debug container": [
        refused("of a GPU pod", "user", debug(TEAM, HELD), by="gpudetour-admitted"),
        refused(
            "that asks for all",
            "user",
            debug(TEAM, HELD, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
            by="gpudetour-admitted",
        ),
        allowed("that sees none", "user", debug(TEAM, HELD, env=VOID)),
        allowed("of a pod without gpus", "user", debug(TEAM, "plain")),
    ],
    "A8 the host": [
        *(
            refused(path, "user", closed(on_host(path)), by=HOST)
            for path in (
                *("/", "//", "/./dev", "/dev", "/dev/", "/dev//nvidia0", "dev", "/proc", "/var"),
                *("/var/lib/kubelet/pods", "/var/lib", "/run", "/var/run", "/var/run//cdi"),
                *("/run/containerd/containerd.sock", "/var/run/docker.sock", "/run/nvidia/driver"),
                *("/sys/fs", "/etc/kubernetes/manifests", "/etc/cdi", "/var/lib/rancher/k3s"),
            )
        ),
        refused("/data/../dev", "user", closed(on_host("/data/../dev")), by=BACKSTEPS),
        refused("privileged", "user", closed(secured(PRIVILEGED)), by=HOST),
        refused(
            "privileged init", "user", closed(secured(PRIVILEGED, field="initContainers")), by=HOST
        ),
        refused(
            "privileged debug", "user", debug(CLOSED, "idle", securityContext=PRIVILEGED), by=HOST
        ),
        refused("all capabilities", "user", closed(capable("ALL")), by=HOST),
        refused("one of them", "user", closed(capable("NET_ADMIN", "cap_sys_admin")), by=HOST),
        refused("privileged", "cluster-admin", closed(secured(PRIVILEGED)), by=HOST),
        refused(
            "opened by its admin",
            "user",
            Request(
                method="PATCH",
                path=f"/api/v1/namespaces/{CLOSED}",
                body={"metadata": {"labels": {"gpudetour.io/host-access": None}}},
            ),
            by="RBAC",
        ),
        *(
            allowed(path, "user", closed(on_host(path)))
            for path in ("/data", "/development", "/var/log", "/srv/dev", "/opt/run")
        ),
        allowed("capability", "user", closed(capable("NET_BIND_SERVICE"))),
        allowed("plain debug", "user", debug(CLOSED, "idle")),
        allowed("unlabelled", "user", create(secured(PRIVILEGED))),
        allowed("unlabelled", "user", create(on_host("/dev"))),
        allowed(
            "opened by an admin",
            "cluster-admin",
            Request(
                method="PATCH",
                path=f"/api/v1/namespaces/{CLOSED}",
                body={"metadata": {"labels": {"gpudetour.io/host-access": None}}},
            ),
        ),
    ],
    "A9 other lists of devices": [
        refused("CDI", "user", create(with_cdi("nvidia.com/gpu=all")), by=DEVICES),
        refused("CDI, two", "user", create(with_cdi("a.com/b=c,nvidia.com/gpu=0")), by=DEVICES),
        refused("CDI of ours", "user", create(with_cdi("gpudetour.io/gpu=0")), by=DEVICES),
        refused(
            "CDI of a GPU pod",
            "user",
            create(changed(gpu_pod("x"), annotations={"cdi.k8s.io/a": "nvidia.com/gpu=1"})),
            by=DEVICES,
        ),
        refused("CDI later", "user", annotate("plain", mine="nvidia.com/gpu=all"), by=DEVICES),
        refused("mount", "user", create(listing(f"{MOUNTS}/all")), by=DEVICES),
        refused("mount of the init", "user", create(listing(f"{MOUNTS}/0", init=True)), by=DEVICES),
        refused(
            "mount in disguise",
            "user",
            create(listing("/x/..//var/run/nvidia-container-devices/0")),
            by=DEVICES,
        ),
        refused("mount", "cluster-admin", create(listing(f"{MOUNTS}/all")), by=DEVICES),
        allowed("CDI of others", "user", create(with_cdi("vendor.com/nic=0"))),
        allowed("CDI of others later", "user", annotate("plain", mine="vendor.com/nic=0")),
        allowed("note", "user", create(with_cdi("nvidia.com/gpu=all", "example.org/note"))),
        allowed("mount elsewhere", "user", create(listing("/var/run/devices/all"))),
        allowed(
            "the vendor's plugin",
            "cluster-admin",
            create(listing(f"{MOUNTS}/all"), "kube-system"),
        ),
    ],
}


@pytest.mark.parametrize("attempt", rows(ATTACKS))
def test_the_api_server_tells_attacks_from_what_is_due(guard: Guarded, attempt: Attempt) -> None:
    assert guard.told(attempt.who, attempt.request) == attempt.by


def test_where_a_namespace_wants_warnings_it_gets_one_for_each_fault(guard: Guarded) -> None:
    pod = on_host("/dev")
    pod["spec"]["containers"][0]["securityContext"] = PRIVILEGED

    answer = guard.door.ask(guard.people["user"], create(pod, WARNED))

    assert answer.by == ""
    assert "closed to them: /dev/" in answer.warnings
    assert "a privileged container reaches every GPU" in answer.warnings
