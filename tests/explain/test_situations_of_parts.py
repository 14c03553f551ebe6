"""Why a pod waits, or was never made, because a part is down or somebody refuses it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs.authority import KeyPair
from explain.causes import Cause
from explain.findings import State
from explain.gather import read_facts
from explain.judge import explain
from kube.client import Client
from kube.connection import connect
from kube.errors import Forbidden
from localcluster import shipped
from localcluster.api import ApiError
from localcluster.stack import NAMESPACE, Stack
from localcluster.waiting import until
from tests.builders import node
from tests.certs.making import authority, server
from tests.cluster.pods import gpu_pod
from tests.explain.site import PODS, TIMEOUT, Site

pytestmark = pytest.mark.controlplane

JOBS = "/apis/batch/v1/namespaces/default/jobs"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets"


def test_the_extender_is_down(site: Site) -> None:
    site.stack.stop("extender")
    try:
        site.free_gpus()
        site.pod(gpu_pod("a"))

        told = site.first("a", Cause.EXTENDER_DOWN, saw="connection refused")
    finally:
        site.stack.start_extender()

    assert told.findings[0].saw.startswith("the scheduler says: ")


def test_the_scheduler_does_not_ask_the_extender(site: Site) -> None:
    site.stack.cluster.restart_scheduler()
    try:
        site.free_gpus()
        site.pod(gpu_pod("a"))

        told = site.first("a", Cause.NOT_CONFIGURED)
    finally:
        site.stack.use_extender()

    assert "default-scheduler counts nvidia.com/gpu itself" in told.findings[0].saw
    assert any("gpudetour scheduler-config" in text for text in told.findings[0].ends)


def test_the_runtime_class_of_a_waiting_pod_is_gone(site: Site) -> None:
    known = {"metadata": {"name": "nvidia-gone"}, "handler": "nvidia"}
    site.api.create(RUNTIME_CLASSES, known)
    pod = gpu_pod("a")
    pod["spec"]["runtimeClassName"] = "nvidia-gone"
    site.pod(pod)
    site.api.delete(f"{RUNTIME_CLASSES}/nvidia-gone")

    told = site.first("a", Cause.RUNTIME_CLASS)

    assert told.state is State.WAITS
    assert [found.cause for found in told.findings] == [Cause.RUNTIME_CLASS, Cause.NO_GPU_NODES]


@contextmanager
def extender_showing(site: Site, pair: KeyPair, ca: bytes, folder: Path) -> Iterator[None]:
    """Another certificate at the extender's port, and in its Secret, as rotation would put it."""
    path = f"{SECRET}/gpudetour-extender-tls"
    before = site.api.get(path)["data"]
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": ca}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    # Clients are known by the authority that everybody else trusts.
    (folder / "ca.crt").write_bytes((site.stack.certificates / "extender" / "ca.crt").read_bytes())
    site.stack.stop("extender")
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    site.api.patch(path, {"data": encoded})
    try:
        site.stack.start_extender({"--tls-dir": str(folder)})
        yield
    finally:
        site.stack.stop("extender")
        site.api.patch(path, {"data": before})
        site.stack.start_extender()


def test_the_extenders_certificate_is_of_an_unknown_authority(site: Site, tmp_path: Path) -> None:
    other = authority()
    with extender_showing(site, server(other), other.certificate, tmp_path):
        site.free_gpus()
        site.pod(gpu_pod("a"))

        told = site.first("a", Cause.CERTIFICATE)

    assert "x509" in told.findings[0].saw


def test_the_extenders_certificate_has_expired(site: Site, tmp_path: Path) -> None:
    stored = site.api.get(f"{SECRET}/gpudetour-ca")["data"]
    ca = KeyPair(
        certificate=base64.b64decode(stored["tls.crt"]), key=base64.b64decode(stored["tls.key"])
    )
    old = server(ca, now=datetime.now(UTC) - timedelta(days=90))
    with extender_showing(site, old, ca.certificate, tmp_path):
        site.free_gpus()
        site.pod(gpu_pod("a"))

        told = site.first("a", Cause.CERTIFICATE, saw="expired at")

    assert "the certificate in Secret gpudetour-extender-tls expired at" in told.findings[0].saw


def test_the_pod_is_older_than_the_install(site: Site) -> None:
    webhook = f"{ADMISSION}/mutatingwebhookconfigurations/gpudetour"
    binding = f"{ADMISSION}/validatingadmissionpolicybindings/gpudetour-admitted"
    site.api.delete(binding)
    site.api.delete(webhook)
    try:
        site.stack.cluster.wait_for(PODS, lambda _: tried(site), timeout=TIMEOUT)
    finally:
        admit_again(site)
    site.free_gpus()

    told = site.first("a", Cause.UNLABELLED)

    assert "gpudetour.io/gpu" in told.findings[0].saw


def admit_again(site: Site) -> None:
    """Apply policy and webhook again; returns when the API server has learnt of both."""
    objects = shipped.admission(site.stack.webhook_url)
    site.stack.cluster.apply(o for o in objects if o["kind"] != "MutatingWebhookConfiguration")
    policy = "gpudetour-admitted"
    until(lambda: policy in site.refusal(), timeout=TIMEOUT, what="the policy in force")
    site.stack.cluster.apply(objects)
    site.stack.issue_certificates()
    until(lambda: not site.refusal(), timeout=TIMEOUT, what="the webhook called")


def tried(site: Site) -> bool:
    """Create the pod until it passes unchanged: API servers learn of deletions a little late."""
    try:
        pod = site.pod(gpu_pod("a"))
    except ApiError:
        return False
    if "labels" not in pod["metadata"]:
        return True
    site.api.delete(f"{PODS}/a", grace_seconds=0)
    return False


def test_nobody_serves_the_scheduler_that_the_pod_names(site: Site) -> None:
    site.free_gpus()
    pod = gpu_pod("a")
    pod["spec"]["schedulerName"] = "volcano"
    site.pod(pod)

    told = site.first("a", Cause.OTHER_SCHEDULER)

    assert "spec.schedulerName is volcano" in told.findings[0].saw


def test_the_scheduler_is_stopped(site: Site) -> None:
    site.stack.cluster.stop_scheduler()
    try:
        site.free_gpus()
        site.pod(gpu_pod("a"))

        site.first("a", Cause.SCHEDULER_SILENT)
    finally:
        site.stack.use_extender()


def test_the_fence_compares_with_another_account(site: Site) -> None:
    path = f"{ADMISSION}/validatingadmissionpolicybindings/gpudetour-fence"
    before = site.api.get(path)["spec"]["paramRef"]
    site.api.patch(path, {"spec": {"paramRef": {**before, "name": "renamed"}}})
    try:
        until(lambda: is_compared_with_nothing(site), timeout=TIMEOUT, what="the fence in force")
        site.free_gpus()
        site.pod(gpu_pod("a"))

        told = site.first("a", Cause.FENCE)
    finally:
        site.api.patch(path, {"spec": {"paramRef": before}})

    assert told.findings[0].ends[0].startswith("apply the manifests again")


def is_compared_with_nothing(site: Site) -> bool:
    """Tell whether the API server has learnt that the policy names another account."""
    probe = {
        "metadata": {"name": "probe", "labels": {"gpudetour.io/gpu": "true"}},
        "target": {"kind": "Node", "name": "nowhere"},
    }
    with pytest.raises(ApiError) as refusal:
        site.api.create(f"{PODS}/probe/binding?dryRun=All", probe)
    return "no params found" in str(refusal.value)


def test_what_may_not_be_read_is_said_and_the_scheduler_is_believed(
    site: Site, explain_stack: Stack
) -> None:
    site.node(node("full").with_gpus(1).annotation_path())
    site.holder(gpu_pod("holder"))
    site.pod(gpu_pod("a"))
    site.first("a", Cause.IN_USE, saw="held by 1 pod")
    role = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    site.create(
        f"{role}/rolebindings",
        {
            "metadata": {"name": "user-views"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "view",
            },
            "subjects": [{"kind": "User", "name": "explain-user"}],
        },
    )
    user = Client(connect(str(explain_stack.cluster.kubeconfig_for("explain-user"))))
    site.stack.cluster.wait_for(f"{PODS}/a", lambda _: may_get_pods(user), timeout=TIMEOUT)

    def told_in_use() -> bool:
        told = explain(read_facts(user, "default", "a"))
        assert {"nodes", "gpu pods", "leases"} <= told.unreadable.keys()
        return [(found.cause, found.count) for found in told.findings] == [(Cause.IN_USE, 1)]

    # The nodes are read at once; the scheduler has its say when it has tried.
    until(told_in_use, timeout=TIMEOUT, what="the scheduler believed")
    user.close()


def may_get_pods(user: Client) -> bool:
    try:
        user.get(PODS)
    except Forbidden:
        return False
    return True
