"""Who waits and was overlooked makes the bell ring, once for each opening, and nobody else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from extender.waking.bell import NAME, Bell
from extender.waking.waiting import QUIET, Waiting
from kube.client import Client
from kube.reflector import EventKind
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import Told, facts
from tests.fakes.api_server import Answer, FakeApiServer, Reply, Request, refusal

WAITS = pod("waits").wants(gpus=1)
HOLDER = pod("holder").wants(gpus=1).on("a")


class Scene:
    """A node whose one GPU is held, a pod that waits, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told = Told(node("a").with_gpus(1).annotation_path())
        self.waiting = Waiting(clock=lambda: self.now)
        self.told.pod(WAITS)
        self.told.pod(HOLDER)

    @property
    def openings(self) -> int:
        return self.told.cluster.openings()

    def reject(self, waiter: PodBuilder = WAITS, *, openings: int | None = None) -> None:
        known = self.openings if openings is None else openings
        self.waiting.answered(facts(waiter), known, fits=False)

    def overlooked(self, *, after: float = QUIET) -> bool:
        self.now += after
        return self.waiting.overlooked(self.told.cluster.snapshot(), self.openings)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def gone(scene: Scene) -> None:
    scene.told.pod(HOLDER, EventKind.DELETED)


def ended(scene: Scene) -> None:
    scene.told.pod(HOLDER.phase("Succeeded"), EventKind.MODIFIED)


def node_changed(scene: Scene) -> None:
    scene.told.node(node("a").with_gpus(2).annotation_path())


@pytest.mark.parametrize("opening", [gone, ended, node_changed])
def test_an_opening_after_the_answer_is_told_once(
    scene: Scene, opening: Callable[[Scene], None]
) -> None:
    scene.reject()
    opening(scene)

    assert [scene.overlooked() for _ in range(3)] == [True, False, False]


def test_without_an_opening_there_is_nothing_to_tell(scene: Scene) -> None:
    scene.reject()
    scene.told.pod(pod("another").wants(gpus=1))
    scene.told.pod(pod("elsewhere").wants(gpus=1).on("b"))

    assert not scene.overlooked()


def test_while_the_scheduler_is_asking_it_may_come_to_the_pod_yet(scene: Scene) -> None:
    scene.reject()
    gone(scene)
    scene.reject(pod("other").wants(gpus=1))

    assert not scene.overlooked(after=QUIET / 2)
    assert scene.overlooked()


def test_a_pod_that_was_asked_for_again_is_not_overlooked(scene: Scene) -> None:
    scene.reject()
    gone(scene)
    scene.reject()

    assert not scene.overlooked()


def test_an_answer_from_before_the_opening_counts_as_that(scene: Scene) -> None:
    before = scene.openings
    gone(scene)
    scene.reject(openings=before)

    assert scene.overlooked()


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(lambda told: told.pod(WAITS, EventKind.DELETED), id="gone"),
        pytest.param(lambda told: told.pod(WAITS.on("b"), EventKind.MODIFIED), id="bound"),
        pytest.param(lambda told: told.pod(WAITS.phase("Failed"), EventKind.MODIFIED), id="ended"),
    ],
)
def test_who_waits_no_more_is_forgotten(scene: Scene, after: Callable[[Told], None]) -> None:
    scene.reject()
    gone(scene)
    after(scene.told)

    assert not scene.overlooked()


def test_a_pod_of_which_the_scheduler_heard_first_is_remembered_until_we_hear_of_it(
    scene: Scene,
) -> None:
    late = pod("late").wants(gpus=1)
    scene.reject(late)
    gone(scene)
    assert not scene.overlooked()

    scene.told.pod(late)

    assert [scene.overlooked() for _ in range(3)] == [True, False, False]


def test_a_pod_that_is_never_heard_of_is_forgotten(scene: Scene) -> None:
    late = pod("late").wants(gpus=1)
    scene.reject(late)
    gone(scene)
    assert not scene.overlooked(after=11)

    scene.told.pod(late)

    assert not scene.overlooked()


def test_a_pod_that_fits_does_not_wait(scene: Scene) -> None:
    scene.reject()
    scene.waiting.answered(facts(WAITS), scene.openings, fits=True)
    gone(scene)

    assert not scene.overlooked()


class BellTower:
    """An API server with the one object, which is there or not."""

    def __init__(self, *, there: bool) -> None:
        self.there = there
        self.rung = threading.Semaphore(0)
        self.server = FakeApiServer(self._reply)

    def _reply(self, request: Request) -> Reply:
        if request.method == "PATCH" and not self.there:
            return refusal(404, "NotFound")
        self.there = True
        self.rung.release()
        return Answer(body=request.body)


@pytest.fixture(params=[True, False], ids=["there", "not there yet"])
def tower(request: pytest.FixtureRequest) -> Iterator[BellTower]:
    tower = BellTower(there=request.param)
    with tower.server:
        yield tower


def test_it_rings_for_a_new_leader_and_for_who_was_overlooked(
    scene: Scene, tower: BellTower
) -> None:
    waiting = Waiting()
    client = Client(tower.server.connection(), timeout=5.0)
    bell = Bell(client, scene.told.cluster, waiting, namespace="ours", leading=lambda: True)
    stop = threading.Event()
    thread = threading.Thread(target=bell.run, args=(stop,))
    thread.start()
    try:
        assert tower.rung.acquire(timeout=20)
        waiting.answered(facts(WAITS), scene.openings, fits=False)
        gone(scene)
        assert tower.rung.acquire(timeout=20)
    finally:
        stop.set()
        thread.join()
        client.close()

    first, *_, last = tower.server.requests
    assert last.path.startswith("/apis/storage.k8s.io/v1/namespaces/ours/csistoragecapacities")
    assert last.body["metadata"]["name"] == NAME
    # Each time another change.
    assert first.body["metadata"]["annotations"] != last.body["metadata"]["annotations"]


def test_who_does_not_lead_does_not_ring(scene: Scene) -> None:
    with FakeApiServer(lambda _request: Answer()) as server:
        client = Client(server.connection(), timeout=5.0)
        asked = threading.Semaphore(0)

        def leading() -> bool:
            asked.release()
            return False

        waiting = Waiting()
        bell = Bell(client, scene.told.cluster, waiting, namespace="ours", leading=leading)
        waiting.answered(facts(WAITS), scene.openings, fits=False)
        gone(scene)
        stop = threading.Event()
        thread = threading.Thread(target=bell.run, args=(stop,))
        thread.start()
        for _ in range(4):
            assert asked.acquire(timeout=20)
        stop.set()
        thread.join()
        client.close()

        assert server.requests == []
