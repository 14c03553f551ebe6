"""Pods made to be slow: as large as the API server takes them, everything of one kind.

The API server checks how much of anything a pod may have only after it asked us. Work that grows
with the square of such a pod takes minutes, and the test's time limit notices.
"""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from tests.webhook.mutating import mutator
from tests.webhook.reviews import GPU, MARKED, UID, Raw, patched, pod, review
from webhook import review as codec
from webhook.judge import judge
from webhook.metrics import Result

pytestmark = pytest.mark.timeout(60)

#: Bytes; MaxRequestBodyBytes of kube-apiserver (server/config.go).
LARGEST = 3 * 1024 * 1024


def annotated(annotations: dict[str, str]) -> Raw:
    made = pod()
    made["metadata"]["annotations"] = annotations
    return made


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def asking(name: str, *resources: str) -> Raw:
    return {"name": name, "resources": {"limits": dict.fromkeys(resources, "1")}}


FLOODS: dict[str, Raw] = {
    "unknown annotations": annotated(dict.fromkeys(numbered("gpudetour.io/min-memor", 80_000), "")),
    "forged annotations": annotated(dict.fromkeys(numbered("cdi.k8s.io/", 100_000), "")),
    "one long annotation": annotated({f"gpudetour.io/{'product' * 400_000}": ""}),
    "a long list of devices": annotated({"gpudetour.io/uuid": "GPU-a," * 400_000}),
    "many kinds of MIG instances in many containers": pod(
        containers=[
            asking("all", *numbered("nvidia.com/mig-", 50_000)),
            *(asking(name, "nvidia.com/gpu") for name in numbered("c", 15_000)),
        ]
    ),
    "unknown resources": pod(containers=[asking("c", *numbered("gpudetour.io/", 100_000))]),
    "containers": pod(
        containers=[{"name": name, "resources": GPU} for name in numbered("c", 35_000)]
    ),
    "device variables": pod(
        containers=[
            {
                "name": "c",
                "resources": GPU,
                "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "x"}] * 55_000,
            }
        ]
    ),
    "variables": pod(
        containers=[
            {"name": "c", "resources": GPU, "env": [{"name": n} for n in numbered("V", 100_000)]}
        ]
    ),
    "mounts": pod(
        containers=[
            {
                "name": "c",
                "resources": GPU,
                "volumeMounts": [{"mountPath": "/a/../" * 10}] * 30_000,
            }
        ]
    ),
    "affinity terms": pod(
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpudetour.io/gpu"}]}]
                    * 50_000
                }
            }
        }
    ),
    "tolerations": pod(tolerations=[{"key": "x"}] * 200_000),
    "node selector": pod(nodeSelector=dict.fromkeys(numbered("k", 200_000), "")),
}


def answered(asked: Any) -> tuple[Result, Raw]:
    body = json.dumps(asked).encode()
    assert LARGEST // 2 < len(body) < 2 * LARGEST
    result, answer = judge(mutator(), codec.decode(body), others=False)
    response: Raw = json.loads(answer)["response"]
    assert response["uid"] == UID
    assert len(json.dumps({**response, "patch": ""})) < 16_000
    return result, response


@pytest.mark.parametrize("kind", FLOODS)
def test_a_pod_as_large_as_can_be_is_answered_shortly(kind: str) -> None:
    result, response = answered(review(FLOODS[kind]))

    assert result in (Result.MUTATED, Result.REFUSED)
    assert response["allowed"] is (result is Result.MUTATED)


def test_annotations_that_lose_much_are_written_anew() -> None:
    obj = copy.deepcopy(FLOODS["forged annotations"])
    obj["metadata"]["annotations"]["team"] = "x"
    _, response = answered(review(obj))

    stored = patched(obj, response)["metadata"]["annotations"]
    assert stored == {"team": "x", "gpudetour.io/devices-from": MARKED}
    assert len(base64.b64decode(response["patch"])) < 4096


def test_many_debug_containers_are_answered_shortly() -> None:
    old = [{"name": name} for name in numbered("old", 50_000)]
    new = [{"name": name} for name in numbered("new", 50_000)]
    after = pod(ephemeralContainers=[*new, *old])

    result, response = answered(
        review(
            after,
            operation="UPDATE",
            subResource="ephemeralcontainers",
            oldObject=pod(ephemeralContainers=old),
        )
    )

    assert result is Result.MUTATED
    assert len(response["patch"]) > len(new)


def test_a_list_that_loses_much_is_written_anew() -> None:
    """Because the API server copies the list for every entry that is taken out."""
    before = copy.deepcopy(FLOODS["device variables"])
    kept = {"name": "A", "value": "1", "later": [2**70, 1.5, "é"]}
    before["spec"]["containers"][0]["env"].insert(7, kept)
    _, response = answered(review(before))

    (container,) = patched(before, response)["spec"]["containers"]

    assert [entry["name"] for entry in container["env"]] == ["A", "NVIDIA_VISIBLE_DEVICES"]
    assert container["env"][0] == kept
    assert len(base64.b64decode(response["patch"])) < 4096
    assert len(response["warnings"]) == 1
