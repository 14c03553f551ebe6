"""When an extender may answer the scheduler: not before the fence is proven and pods are listed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from extender.leading.fence import Fence
from extender.leading.leader import Leader
from gpus.annotations import EPOCH
from localcluster.waiting import until
from tests.builders import node, pod
from tests.extender.ledgers import Told
from tests.fakes.api_server import Reply, Request, refusal
from tests.fakes.binding_api import BindingApi, refused

HOLDER = pod("p").wants(gpus=1).on("n").assigned({"main": ["GPU-n-0"]}, epoch=0)


@dataclass
class Lease:
    epoch: int | None = None
    outdone: list[int] = field(default_factory=list)

    def outdo(self, epoch: int) -> None:
        self.outdone.append(epoch)


@dataclass
class Led:
    api: BindingApi
    told: Told
    lease: Lease
    leader: Leader

    def take(self, epoch: int, *, policy: int | None = -1) -> None:
        """Take the Lease, as the Elector does; the policy sees it at once unless told otherwise."""
        if policy != -1:
            self.api.follows, self.api.epoch = False, policy
        self.lease.epoch = epoch
        self.leader.on_leading(epoch)

    def lose(self) -> None:
        self.lease.epoch = None
        self.leader.on_lost()

    def until_serving(self) -> None:
        until(lambda: self.leader.serving() is not None, timeout=30, what="serving")


@contextmanager
def led(*, fenced: bool = True, synced: Callable[[], bool] = lambda: True) -> Iterator[Led]:
    with BindingApi(HOLDER) as api:
        client, told, lease = api.client(), Told(), Lease()
        fence = Fence(client, namespace="gpudetour-system", timeout=0.2) if fenced else None
        leader = Leader(client, told.cluster, fence=fence, nodes_synced=synced)
        leader.follow(lease)
        stop = threading.Event()
        thread = threading.Thread(target=leader.run, args=(stop,))
        thread.start()
        try:
            yield Led(api, told, lease, leader)
        finally:
            stop.set()
            leader.close()
            thread.join(10)
        assert not thread.is_alive()


def test_a_new_leader_serves_after_fence_and_listing() -> None:
    with led() as run:
        assert "another replica leads" in (run.leader.not_ready() or "")

        run.take(7)
        run.until_serving()

        assert run.leader.serving() == 7
        probes = [r for r in run.api.requests if r.path.endswith("/binding")]
        assert all(r.params == {"dryRun": "All"} for r in probes)
        assert [r.body["metadata"]["annotations"]["gpudetour.io/assigned"] for r in probes] == [
            '{"v":1,"epoch":6,"containers":{}}',
            '{"v":1,"epoch":7,"containers":{}}',
        ]
        listing = next(r for r in run.api.requests if r.path == "/api/v1/pods")
        assert listing.params["labelSelector"] == "gpudetour.io/gpu=true"
        assert "resourceVersion" not in listing.params
        assert len(run.told.cluster.snapshot().pods) == 1


def test_nothing_is_served_before_the_nodes_are_listed() -> None:
    synced = threading.Event()
    with led(synced=synced.is_set) as run:
        run.take(1)
        until(lambda: len(run.told.cluster.snapshot().pods) == 1, timeout=30, what="pods")
        assert run.leader.not_ready() == "nodes are not listed yet"
        synced.set()
        run.until_serving()


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (None, "apply the policies gpudetour-fence and gpudetour-assign"),
        (9, "refuses Bindings of epoch 3"),
    ],
)
def test_without_a_fence_nothing_is_served_until_it_is_there(policy: int | None, says: str) -> None:
    with led() as run:
        run.take(3, policy=policy)
        until(lambda: says in (run.leader.not_ready() or ""), timeout=30, what=says)
        assert run.leader.serving() is None
        assert len(run.told.cluster.snapshot().pods) == 0

        run.api.epoch = 3
        run.until_serving()


@pytest.mark.parametrize("status", [401, 500])
def test_a_fence_that_cannot_be_tried_is_not_taken_for_proven(status: int) -> None:
    with led() as run:
        run.api.trouble = refused(status)
        run.take(1)
        says = "the fence cannot be tried"
        until(lambda: says in (run.leader.not_ready() or ""), timeout=30, what=says)
        run.api.trouble = lambda _request, proceed: proceed()
        run.until_serving()


def test_the_fence_may_be_switched_off() -> None:
    with led(fenced=False) as run:
        run.take(1, policy=None)
        run.until_serving()
        assert not [r for r in run.api.requests if r.method == "POST"]


def test_a_leader_that_lost_the_lease_stops_at_once_and_may_lead_again() -> None:
    with led() as run:
        run.take(1)
        run.until_serving()

        run.lease.epoch = None  # the deadline passed, and the Elector has not noticed yet
        assert run.leader.serving() is None
        run.lose()
        run.api.put(HOLDER.phase("Succeeded"))
        run.take(3)
        run.until_serving()

        assert run.leader.serving() == 3
        (known,) = run.told.cluster.snapshot().pods.values()
        assert known.ended


def test_another_leaders_epoch_is_not_ours() -> None:
    with led() as run:
        run.take(1)
        run.until_serving()
        run.lease.epoch = 2  # taken again, and the term for it has not begun

        assert run.leader.serving() is None


def test_what_the_leader_before_kept_is_forgotten() -> None:
    with led() as run:
        run.told.node(node("n").with_gpus(4).annotation_path())
        run.told.reserved(pod("q").wants(gpus=2), "n", epoch=1)

        run.take(2)
        run.until_serving()

        state = run.told.cluster.snapshot().nodes["n"]  # type: ignore[index]
        assert sum(state.free.values()) == 3


@pytest.mark.parametrize("epoch", [1, 4])
def test_an_epoch_that_pods_were_bound_in_before_is_given_up_for_a_later_one(epoch: int) -> None:
    with led() as run:
        run.api.put(HOLDER.assigned({"main": ["GPU-n-0"]}, epoch=4))
        run.take(epoch)
        until(lambda: run.lease.outdone, timeout=30, what="another epoch asked for")

        assert run.lease.outdone == [4]
        assert "in use before" in (run.leader.not_ready() or "")

        run.lose()
        run.take(5)
        run.until_serving()
        assert run.lease.outdone == [4]


def begun(api: BindingApi) -> str:
    return str(api.account["metadata"]["annotations"][EPOCH])


def test_a_new_leader_writes_its_epoch_before_it_tries_the_fence() -> None:
    with led() as run:
        run.take(3)
        run.until_serving()

        assert begun(run.api) == "3"
        calls = [call for call in run.api.calls() if call.startswith(("PATCH", "POST"))]
        assert calls[0] == "PATCH serviceaccounts/gpudetour-extender"


def test_a_leader_never_takes_a_later_epoch_back() -> None:
    with led() as run:
        run.api.account["metadata"]["annotations"] = {EPOCH: "9"}
        run.take(3)
        until(lambda: run.lease.outdone, timeout=10, what="another epoch asked for")

        assert run.lease.outdone[0] == 9
        assert begun(run.api) == "9"
        assert run.leader.serving() is None


def test_of_two_that_begin_at_once_the_later_epoch_stays() -> None:
    def overtaken(request: Request, proceed: Callable[[], Reply]) -> Reply:
        if request.method == "PATCH":  # another one was faster, between our look and our write
            run.api.account["metadata"] |= {"resourceVersion": "7", "annotations": {EPOCH: "5"}}
            run.api.trouble = lambda _request, proceed: proceed()
        return proceed()

    with led() as run:
        run.api.trouble = overtaken
        run.take(4)
        until(lambda: run.lease.outdone, timeout=10, what="another epoch asked for")

        assert begun(run.api) == "5"


def test_a_leader_whose_epoch_was_taken_away_begins_another_term() -> None:
    with led() as run:
        run.take(2)
        run.until_serving()
        run.leader.doubt()
        assert run.lease.outdone == []

        run.api.account["metadata"]["annotations"] = {}
        run.leader.doubt()

        assert run.lease.outdone == [2]


def test_what_cannot_be_read_is_no_doubt() -> None:
    with led() as run:
        run.take(2)
        run.until_serving()
        run.api.trouble = refused(500)
        run.leader.doubt()

        assert run.lease.outdone == []


def test_a_listing_that_fails_is_tried_again() -> None:
    failures = iter([503, 500])

    def trouble(request: Request, proceed: Callable[[], Reply]) -> Reply:
        if request.path == "/api/v1/pods" and not request.is_watch:
            status = next(failures, None)
            if status is not None:
                return refusal(status)
        return proceed()

    with led() as run:
        run.api.trouble = trouble
        run.take(1)
        run.until_serving()
