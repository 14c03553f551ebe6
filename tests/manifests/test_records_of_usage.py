"""What the extender may write beside what assigns GPUs: the records of who held them, no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.stack import NAMESPACE
from tests.manifests.attempts import Attempt, allowed, refused, rows
from tests.manifests.door import Object, Request
from tests.manifests.guarded import TEAM, Guarded, config_maps

pytestmark = pytest.mark.controlplane

RECORD, OTHER = "gpudetour-usage-2020-01", "somebodys-own"
ASSIGN, KEEP = "gpudetour-assign", "gpudetour-keep-configmaps"


def record(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"team": '{"v":1,"seconds":{"0":1}}'},
    }


def create(name: str, namespace: str = NAMESPACE) -> Request:
    return Request(method="POST", path=config_maps(namespace), body=record(name))


def replace(name: str) -> Request:
    return Request(method="PUT", path=f"{config_maps(NAMESPACE)}/{name}", body=record(name))


def delete(name: str) -> Request:
    return Request(method="DELETE", path=f"{config_maps(NAMESPACE)}/{name}")


ATTEMPTS = {
    "made": [
        allowed("a record", "extender", create("gpudetour-usage-2020-02")),
        refused("a record elsewhere", "extender", create(RECORD, TEAM), by=ASSIGN),
        refused("something else", "extender", create("kube-root"), by=ASSIGN),
        refused("a record", "user", create("gpudetour-usage-2020-02"), by="RBAC"),
    ],
    "changed": [
        allowed("a record", "extender", replace(RECORD)),
        refused("something else", "extender", replace(OTHER), by=KEEP),
        refused("a record", "user", replace(RECORD), by="RBAC"),
    ],
    "deleted": [
        refused("a record", "extender", delete(RECORD), by=KEEP),
        refused("something else", "extender", delete(OTHER), by=KEEP),
        allowed("a record", "cluster-admin", delete(RECORD)),
    ],
}


@pytest.fixture(scope="module")
def records(guard: Guarded) -> Iterator[Guarded]:
    api = guard.cluster.api
    for name in (RECORD, OTHER):
        api.create(config_maps(NAMESPACE), record(name))
    yield guard
    for name in (RECORD, OTHER):
        api.delete(f"{config_maps(NAMESPACE)}/{name}")


@pytest.mark.parametrize("attempt", rows(ATTEMPTS))
def test_the_extender_writes_records_and_nothing_else(records: Guarded, attempt: Attempt) -> None:
    assert records.told(attempt.who, attempt.request) == attempt.by
