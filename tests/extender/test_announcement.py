"""What the Event on a pod says of the GPUs that it got."""

from __future__ import annotations

import pytest

from extender.binding.announcement import text
from gpus.model import Assignment, DeviceId

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")


@pytest.mark.parametrize(
    ("assignment", "path", "said"),
    [
        (
            Assignment(epoch=1, containers={"main": (A,)}),
            "annotation",
            "Got GPU-a of node n1 (path annotation)",
        ),
        (
            Assignment(epoch=1, containers={"main": (A, B), "init": (A, B)}),
            "annotation",
            "Got GPU-a, GPU-b of node n1 (path annotation)",
        ),
        (
            Assignment(epoch=1, containers={"b": (B,), "a": (A,), "none": ()}),
            "annotation",
            "Got of node n1 (path annotation): a: GPU-a; b: GPU-b",
        ),
        (
            Assignment(epoch=1, containers={"main": (A,)}, share_bytes=3 << 29),
            "annotation",
            "Got 1.5 GiB of GPU-a of node n1 (path annotation)",
        ),
        (Assignment(epoch=1), "plugin", "Kubelet of node n1 chooses the GPUs (path plugin)"),
    ],
)
def test_the_event_names_what_the_pod_got(assignment: Assignment, path: str, said: str) -> None:
    assert text(assignment, node="n1", path=path) == said
