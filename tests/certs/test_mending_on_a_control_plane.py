"""Whatever somebody does to Secrets, caBundle, rights or the API server: the shipped processes mend
it within 30 seconds, or say what is to be done, and no pod is refused longer than that.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certs.authority import is_issued_by
from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.stack import AGENT_ACCOUNT, CERTS, EXTENDER, NAMESPACE, WEBHOOK, Stack
from localcluster.waiting import until
from tests.certs import making
from tests.certs.keeping import (
    CONFIGURATION,
    LEAVES,
    SECRETS,
    Keeper,
    ca_bundle,
    mended,
    secret,
    webhook,
)
from tests.certs.test_rotation_on_a_control_plane import refused

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]
ROLE = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/{CERTS}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """Two processes with what is shipped, and a webhook that serves from its Secret."""
    del control_plane_parts
    with LocalCluster(tmp_path_factory.mktemp("mending") / "cluster") as cluster:
        stack = Stack(cluster)
        cluster.apply(shipped.cluster_objects())
        cluster.apply(shipped.admission(stack.webhook_url))
        for keeper in (Keeper(cluster, "certs-1", {}), Keeper(cluster, "certs-2", {})):
            keeper.start()
        with webhook(stack, period=0.2):
            mended(cluster)
            until(lambda: not refused(cluster), timeout=30, what="the first pod")
            yield stack


@pytest.fixture
def cluster(stack: Stack) -> Iterator[LocalCluster]:
    """All is well before a test, and after it."""
    mended(stack.cluster)
    yield stack.cluster
    mended(stack.cluster)
    until(lambda: not refused(stack.cluster), timeout=30, what="a pod is admitted")
    assert stack.cluster.processes.alive("certs-1")
    assert stack.cluster.processes.alive("certs-2")


@pytest.fixture
def keeper(cluster: LocalCluster) -> Iterator[Keeper]:
    """One more process, of which a test can ask more."""
    keeper = Keeper(cluster, "certs-3", {"--every": "1s"})
    keeper.start()
    keeper.until_ready()
    yield keeper
    keeper.stop()


def warnings(keeper: Keeper) -> list[Object]:
    """What it was troubled by, and those of its name that other tests had."""
    return [r for r in keeper.records() if r["event"] == "certificates cannot be looked after"]


def put(cluster: LocalCluster, name: str, data: dict[str, bytes | None]) -> None:
    """Change some keys of a Secret; None removes one that its type does not demand."""
    encoded = {k: None if v is None else base64.b64encode(v).decode() for k, v in data.items()}
    cluster.api.patch(f"{SECRETS}/{name}", {"data": encoded})


def set_bundle(cluster: LocalCluster, bundle: bytes) -> None:
    patch = {
        "op": "add",
        "path": "/webhooks/0/clientConfig/caBundle",
        "value": base64.b64encode(bundle).decode(),
    }
    cluster.api.patch(CONFIGURATION, [patch], kind="json")


def of_another() -> dict[str, bytes]:
    other = making.authority()
    pair = making.server(other)
    return {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": other.certificate}


@pytest.mark.parametrize("name", LEAVES.values())
def test_a_deleted_secret_comes_back(cluster: LocalCluster, name: str) -> None:
    authority = secret(cluster, "gpudetour-ca")["tls.crt"]
    cluster.api.delete(f"{SECRETS}/{name}")

    until(lambda: secret(cluster, name), timeout=30, what=name)
    assert is_issued_by(secret(cluster, name)["tls.crt"], authority)
    assert refused(cluster) is None


def test_without_the_authoritys_secret_everybody_is_believed_on(cluster: LocalCluster) -> None:
    before = {name: secret(cluster, name) for name in LEAVES.values()}
    old = secret(cluster, "gpudetour-ca")["tls.crt"]
    cluster.api.delete(f"{SECRETS}/gpudetour-ca")

    def introduced() -> bool:
        assert refused(cluster) is None
        new = secret(cluster, "gpudetour-ca").get("tls.crt")
        return new is not None and new != old and new in ca_bundle(cluster)

    until(introduced, timeout=30, what="another authority")
    mended(cluster)
    for name, held in before.items():
        assert secret(cluster, name)["tls.crt"] == held["tls.crt"]
        assert old in secret(cluster, name)["ca.crt"]
    assert old in ca_bundle(cluster)


@pytest.mark.parametrize("bundle", [b"", making.authority().certificate])
def test_a_ca_bundle_of_somebody_else_is_replaced(cluster: LocalCluster, bundle: bytes) -> None:
    wanted = ca_bundle(cluster)
    set_bundle(cluster, bundle)

    until(lambda: ca_bundle(cluster) == wanted, timeout=30, what="our caBundle")


def test_a_configuration_that_is_applied_anew_is_filled(
    stack: Stack, cluster: LocalCluster
) -> None:
    wanted = ca_bundle(cluster)
    cluster.api.delete(CONFIGURATION)
    cluster.apply(shipped.admission(stack.webhook_url))

    until(lambda: ca_bundle(cluster) == wanted, timeout=30, what="our caBundle")


@pytest.mark.parametrize(
    "broken",
    [
        lambda _: {"ca.crt": None},
        lambda _: {"tls.crt": b"", "tls.key": b""},
        lambda _: {"tls.crt": b"garbage"},
        lambda _: {"tls.key": of_another()["tls.key"]},
        lambda _: of_another(),
    ],
    ids=["no bundle", "empty", "garbage", "another's key", "another's"],
)
@pytest.mark.parametrize("name", ["gpudetour-webhook-tls", "gpudetour-ca"])
def test_a_half_written_secret_is_written_whole(
    cluster: LocalCluster, name: str, broken: Callable[[object], dict[str, bytes | None]]
) -> None:
    put(cluster, name, broken(None))

    mended(cluster)


def test_when_all_has_expired_all_is_issued_at_once(cluster: LocalCluster) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=400)
    ca = making.authority(now=long_ago)
    leaf = making.server(ca, now=long_ago)
    put(
        cluster,
        "gpudetour-ca",
        {"tls.crt": ca.certificate, "tls.key": ca.key, "ca.crt": ca.certificate},
    )
    for name in LEAVES.values():
        put(
            cluster,
            name,
            {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": ca.certificate},
        )
    set_bundle(cluster, ca.certificate)

    mended(cluster)
    assert ca.certificate not in ca_bundle(cluster)


def test_without_its_rights_it_says_what_to_grant_and_goes_on(
    cluster: LocalCluster, keeper: Keeper
) -> None:
    rules = cluster.api.get(ROLE)["rules"]
    before = len(warnings(keeper))
    cluster.api.patch(ROLE, {"rules": []})
    try:
        until(lambda: "manifests/kubeadm.yaml" in keeper.readiness(), timeout=30, what="the advice")
        assert (keeper.metric("gpudetour_certificate_passes_total", result="failed") or 0) > 0
    finally:
        cluster.api.patch(ROLE, {"rules": rules})
    keeper.until_ready()
    warned = warnings(keeper)[before:]
    assert 1 <= len(warned) <= 3  # once for each different refusal, not with every try


def test_while_the_api_server_is_down_it_waits(cluster: LocalCluster, keeper: Keeper) -> None:
    cluster.restart("kube-apiserver")

    keeper.until_ready()
    assert keeper.alive()


def test_an_immutable_secret_is_told(cluster: LocalCluster, keeper: Keeper) -> None:
    name = "gpudetour-scheduler-client"
    cluster.api.patch(f"{SECRETS}/{name}", {"data": {"ca.crt": ""}, "immutable": True})

    until(lambda: "immutable" in keeper.readiness(), timeout=30, what="the reason")
    cluster.api.delete(f"{SECRETS}/{name}")
    keeper.until_ready()


def test_metrics_tell_until_when_everything_is_valid(keeper: Keeper) -> None:
    names = ("authority", *LEAVES)
    told = [keeper.metric("gpudetour_certificate_not_after_seconds", name=name) for name in names]
    now = datetime.now(UTC).timestamp()
    days = [round(((until or 0) - now) / 86400) for until in told]

    assert days[0] > 1800
    assert all(19 <= left <= 30 for left in days[1:3])
    assert 480 <= days[3] <= 730
    assert abs(keeper.metric("gpudetour_clock_ahead_seconds") or 0) < 30


@pytest.mark.parametrize("account", [WEBHOOK, EXTENDER, AGENT_ACCOUNT])
def test_nobody_else_may_read_a_key(cluster: LocalCluster, account: str) -> None:
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    for verb in ("get", "list", "watch", "update", "patch", "create"):
        for name in ("gpudetour-ca", *LEAVES.values()):
            said = cluster.kubectl(
                "auth", "can-i", verb, f"secrets/{name}", "-n", NAMESPACE, user, check=False
            )
            assert said.strip() == "no", f"{account} may {verb} {name}"
