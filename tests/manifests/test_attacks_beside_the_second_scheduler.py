"""What holds where kube-scheduler has the extender's account, and binds pods without GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.shipped import Variant
from tests.manifests.attempts import Attempt, allowed, refused, rows
from tests.manifests.door import Object, Request
from tests.manifests.guarded import (
    DEVICES,
    EPOCH,
    HELD,
    Guarded,
    assigned,
    binding,
    config_maps,
    device_list,
    guarded,
    pods,
)

pytestmark = pytest.mark.controlplane

ASSIGN, FENCE = "gpudetour-assign", "gpudetour-fence"


@pytest.fixture(scope="module")
def second(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None, helm: Path
) -> Iterator[Guarded]:
    """The policies and rights of the second scheduler's variant."""
    del control_plane_parts, helm
    folder = tmp_path_factory.mktemp("second")
    with guarded(folder, Variant.SECOND_SCHEDULER) as site:
        yield site


def bind(name: str, body: Object) -> Request:
    return Request(method="POST", path=f"{pods()}/{name}/binding", body=body)


def unlabelled(body: Object) -> Object:
    del body["metadata"]["labels"]
    return body


def make_list(body: Object) -> Request:
    return Request(method="POST", path=config_maps(), body=body)


def evict(**metadata: object) -> Request:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": HELD, **metadata}}
    return Request(method="POST", path=f"{pods()}/{HELD}/eviction", body=body)


OF_EPOCH = {
    epoch: {
        "labels": {"gpudetour.io/gpu": "true"},
        "annotations": {"gpudetour.io/assigned": assigned(epoch)},
    }
    for epoch in (EPOCH - 1, EPOCH)
}
OTHER_LIST = DEVICES[:-1] + "o"

ATTACKS = {
    "the shared account": [
        refused(
            "old epoch", "extender", bind("waiting", binding("waiting", epoch=EPOCH - 1)), by=FENCE
        ),
        refused("no label", "extender", bind("waiting", unlabelled(binding("waiting"))), by=ASSIGN),
        refused(
            "another list",
            "extender",
            bind(
                "waiting", binding("waiting", epoch=None, **{"gpudetour.io/devices-from": DEVICES})
            ),
            by=ASSIGN,
        ),
        refused(
            "old list", "extender", make_list(device_list(OTHER_LIST, epoch=EPOCH - 1)), by=FENCE
        ),
        refused("ConfigMap", "extender", make_list({"metadata": {"name": "own"}}), by=ASSIGN),
        refused("eviction", "extender", evict(), by=ASSIGN),
        refused("old eviction", "extender", evict(**OF_EPOCH[EPOCH - 1]), by=FENCE),
        allowed("of the leader", "extender", bind("waiting", binding("waiting"))),
        allowed("no GPUs", "extender", bind("plain", binding("plain", epoch=None))),
        allowed("list", "extender", make_list(device_list(OTHER_LIST))),
        allowed("eviction", "extender", evict(**OF_EPOCH[EPOCH])),
    ],
    "others": [
        refused("assigned", "other-scheduler", bind("waiting", binding("waiting")), by=FENCE),
        refused(
            "no label",
            "other-scheduler",
            bind("waiting", unlabelled(binding("waiting"))),
            by=ASSIGN,
        ),
        refused("list", "user", make_list(unlabelled(device_list(OTHER_LIST))), by=ASSIGN),
        allowed("no GPUs", "other-scheduler", bind("plain", binding("plain", epoch=None))),
        allowed("eviction", "cluster-admin", evict()),
    ],
}


@pytest.mark.parametrize("attempt", rows(ATTACKS))
def test_the_api_server_tells_attacks_from_what_is_due(second: Guarded, attempt: Attempt) -> None:
    assert second.told(attempt.who, attempt.request) == attempt.by
