"""What the Event on a pod says of the GPUs that it got."""

from __future__ import annotations

import threading

import pytest

from extender.binding.announcement import Announcer, text
from extender.cluster import Cluster
from extender.protocol import ExtenderBindingArgs
from gpus.model import Assignment, DeviceId
from kube.client import Client
from kube.events import EventRecorder
from tests.fakes.api_server import Answer, FakeApiServer, Request

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


def test_in_a_storm_of_binds_some_are_told_and_none_is_told_late() -> None:
    now = 0.0

    def accept(request: Request) -> Answer:
        del request
        return Answer(body={})

    with FakeApiServer(accept) as server:
        client = Client(server.connection())
        events = EventRecorder(client, component="test", instance="test-1")
        announcer = Announcer(events, Cluster(clock=lambda: now), clock=lambda: now)

        def told(names: range) -> int:
            """Bind these pods, write what waits, and count all that was written until now."""
            for number in names:
                args = ExtenderBindingArgs(pod_name=f"p{number}", pod_uid=str(number), node="n1")
                announcer.bound(args, Assignment(epoch=1, containers={"main": (A,)}))
            over = threading.Event()
            over.set()
            events.run(over)
            return len(server.requests)

        first = told(range(1000))
        assert 10 <= first <= 25
        assert told(range(0)) == first  # nothing waits for its turn
        now = 3600.0
        assert told(range(1000, 1001)) == first + 1
        client.close()
