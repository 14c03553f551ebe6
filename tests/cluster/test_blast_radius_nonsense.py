"""A webhook that answers nonsense in the place of ours: who notices, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.api import ApiError
from localcluster.stack import Stack
from tests.cluster.pods import Object, gpu_pod, plain_pod
from tests.cluster.strange_webhook import (
    Answer,
    Reply,
    allow,
    in_the_place_of_ours,
    patching,
    review,
    strange_webhook,
)
from tests.cluster.test_blast_radius import NO_ANSWER, try_to_create, with_nvidia_runtime

pytestmark = pytest.mark.controlplane

POLICY = "ValidatingAdmissionPolicy 'gpudetour-admitted'"
MEBIBYTE = 1 << 20


def answer(content: object, status: int = 200) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda _request: Answer(body=body, status=status)


def reviewed(**changes: Any) -> Reply:
    return lambda request: Answer(body=json.dumps(review(request, **changes)).encode())


def larger_than(size: int) -> Reply:
    def reply(request: Object) -> Answer:
        return Answer(body=json.dumps(review(request)).encode() + b" " * size)

    return reply


NONSENSE: dict[str, Reply] = {
    "nothing is changed": allow,
    "the connection is closed": lambda _request: Answer(body=None),
    "no body": answer(b""),
    "no JSON": answer(b"<html>"),
    "no review": answer({"kind": "Status", "apiVersion": "v1"}),
    "500": answer(b"internal error", 500),
    "503": answer(b"not ready", 503),
    "429": answer(b"later", 429),
    "another uid": reviewed(uid="0"),
    "a patch of no type": reviewed(patch="W10="),
    "too long": larger_than(32 * MEBIBYTE),
}
#: These count as answers for the API server, which refuses them with a text of its own.
BAD_PATCHES: dict[str, Reply] = {
    "no list": patching({"op": "add"}),
    "no such path": patching([{"op": "replace", "path": "/spec/nothing/here", "value": 1}]),
    "no pod": patching([{"op": "replace", "path": "/spec/containers", "value": "none"}]),
}


@pytest.fixture(scope="module")
def replaced(
    quiet_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Reply], list[str]]]:
    """Another webhook in the place of ours; sets its answers and returns what it is asked."""
    folder: Path = tmp_path_factory.mktemp("strange") / "pki"
    with strange_webhook(folder, allow) as webhook:
        with in_the_place_of_ours(quiet_stack.cluster.api, webhook):

            def use(reply: Reply) -> list[str]:
                webhook.reply = reply
                return webhook.asked()

            yield use
        webhook.reply = allow


Replaced = Callable[[Reply], list[str]]


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_no_answer(quiet_stack: Stack, replaced: Replaced, reply: Reply) -> None:
    asked = len(replaced(reply))

    try_to_create(quiet_stack, plain_pod("plain"))
    for pod in (gpu_pod("gpu"), with_nvidia_runtime("runtime")):
        with pytest.raises(ApiError, match=NO_ANSWER):
            try_to_create(quiet_stack, pod)

    assert set(replaced(reply)[asked:]) == {"gpu", "runtime"}


@pytest.mark.parametrize("reply", BAD_PATCHES.values(), ids=BAD_PATCHES)
def test_a_patch_that_cannot_be_applied_stops_only_pods_with_gpus(
    quiet_stack: Stack, replaced: Replaced, reply: Reply
) -> None:
    asked = len(replaced(reply))

    try_to_create(quiet_stack, plain_pod("plain"))
    with pytest.raises(ApiError):
        try_to_create(quiet_stack, gpu_pod("gpu"))

    assert set(replaced(reply)[asked:]) == {"gpu"}


ENTRY = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
MARKS = [
    {"op": "add", "path": "/metadata/labels", "value": {"gpudetour.io/gpu": "true"}},
    {
        "op": "add",
        "path": "/metadata/annotations",
        "value": {"gpudetour.io/devices-from": f"gpudetour-devices-{'a' * 20}"},
    },
]


@pytest.mark.parametrize("env", [[], [ENTRY], [{**ENTRY, "value": "void"}, ENTRY]])
def test_what_another_webhook_undid_is_named(
    quiet_stack: Stack, replaced: Replaced, env: list[Object]
) -> None:
    replaced(patching([*MARKS, {"op": "add", "path": "/spec/containers/0/env", "value": env}]))

    with pytest.raises(ApiError, match=rf"{POLICY}.*another one undid it in: main\. An admin"):
        try_to_create(quiet_stack, gpu_pod("gpu"))
