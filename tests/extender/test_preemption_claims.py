"""What was begun for a waiting pod, and that nothing is begun twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from extender.filtering import Filter
from extender.patience import Patience
from extender.placement.shortlist import Choice
from extender.placement.strategies import binpack
from extender.preempting.preemption import BEGUN, DELAY, KEPT, NOWHERE, REST, Need, Preemption
from extender.waking.waiting import Waiting
from gpus.model import NodeName, PodUid
from kube.reflector import EventKind
from tests.builders import PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import Told, facts

NODES = (NodeName("a"), NodeName("b"))
NEW = pod("new").wants(gpus=1).of_priority(9)
OTHER = pod("other").wants(gpus=1).of_priority(1)


def holder(name: str, on: str, *, priority: int = 0) -> PodBuilder:
    """A pod that holds the one GPU of a node."""
    built = pod(name).wants(gpus=1).of_priority(priority).on(on)
    return built.assigned({"main": [gpu_id(on, 0)]})


ON_A, ON_B = holder("on-a", "a"), holder("on-b", "b")
UID_A, UID_B = PodUid("uid-on-a"), PodUid("uid-on-b")
BOTH = {NODES[0]: frozenset({UID_A}), NODES[1]: frozenset({UID_B})}


@dataclass
class Site:
    """Two nodes of one GPU each, both in use, and a pod that waits."""

    evicting: bool = True
    told: Told = field(init=False)
    preemption: Preemption = field(init=False)

    def __post_init__(self) -> None:
        self.told = Told(*(node(name).with_gpus(1).annotation_path() for name in NODES))
        for built in (ON_A, ON_B, NEW):
            self.told.pod(built)
        cluster = self.told.cluster
        self.preemption = Preemption(cluster, evicting=self.evicting, clock=lambda: self.told.now)
        self._filter = Filter(
            cluster,
            choice=Choice(rank=binpack, limit=1),
            hold_seconds=5,
            patience=Patience(0),
            waiting=Waiting(),
        )

    def filter(
        self, asking: PodBuilder, *names: NodeName, nominated: NodeName = NOWHERE
    ) -> list[NodeName]:
        """Do as the application does when the scheduler asks."""
        decision = self._filter.filter(facts(asking), frozenset(names or NODES))
        self.preemption.filtered(facts(asking), decision, nominated=nominated)
        return decision.nodes

    def need(self) -> Need | None:
        """What the evictor gets to do a little later."""
        self.told.now += DELAY
        return self.preemption.next_need(seconds=0)

    def evict(self, victim: PodBuilder = ON_A) -> Need:
        """Do as the evictor does."""
        self.filter(NEW)
        need = self.need()
        assert need is not None
        assert self.preemption.begin(need, NodeName(victim.node), frozenset({facts(victim).uid}))
        self.told.pod(victim.deleting())
        return need

    def vetted(self, nominated: NodeName = NOWHERE) -> list[NodeName]:
        return self.preemption.vetted(facts(NEW), BOTH, nominated=nominated)


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_pod_that_found_no_gpu_is_a_need_a_moment_later(site: Site) -> None:
    site.filter(NEW)

    assert site.preemption.next_need(seconds=0) is None
    need = site.need()
    assert need is not None
    assert (need.pod.uid, set(need.names)) == (facts(NEW).uid, set(NODES))
    assert site.need() is None


@pytest.mark.parametrize(
    "asking",
    [
        NEW.of_priority(0),
        NEW._with(spec={"preemptionPolicy": "Never"}),
        pod("new").of_priority(9),
    ],
)
def test_no_need_of_those_who_may_not_or_need_not(site: Site, asking: PodBuilder) -> None:
    site.filter(asking)

    assert site.need() is None


def test_no_need_where_nobody_evicts() -> None:
    site = Site(evicting=False)

    site.filter(NEW)

    assert site.need() is None


def test_a_need_ends_when_the_pod_finds_a_gpu_after_all(site: Site) -> None:
    site.filter(NEW)
    site.told.pod(ON_B, EventKind.DELETED)
    assert site.filter(NEW) == ["b"]

    assert site.need() is None


def test_the_most_important_pod_is_served_first(site: Site) -> None:
    for asking in (OTHER, NEW, pod("third").wants(gpus=1).of_priority(5)):
        site.filter(asking)
    site.told.now += DELAY

    found = [site.preemption.next_need(seconds=0) for _ in range(3)]

    assert [need.pod.priority for need in found if need is not None] == [9, 5, 1]


def test_no_second_need_while_victims_are_leaving(site: Site) -> None:
    site.evict()
    site.told.now += 3600

    site.filter(NEW)

    assert site.need() is None


def test_what_comes_free_goes_to_nobody_else(site: Site) -> None:
    site.evict()
    site.filter(NEW)

    site.told.pod(ON_A, EventKind.DELETED)

    assert site.filter(OTHER) == []
    assert site.filter(NEW) == ["a"]


def test_it_is_kept_as_long_as_it_takes_and_no_longer_than_it_makes_sense(site: Site) -> None:
    site.evict()
    for _ in range(10):
        site.told.now += KEPT - 1
        site.preemption.renew()
    site.told.pod(ON_A, EventKind.DELETED)
    site.preemption.renew()

    assert site.filter(OTHER) == []

    site.told.now += KEPT
    site.preemption.renew()
    site.told.now += KEPT
    assert site.filter(OTHER) == ["a"]


def test_a_node_that_is_no_longer_named_is_given_up(site: Site) -> None:
    site.evict()

    site.filter(NEW, NODES[1])

    need = site.need()
    assert need is not None
    assert set(need.names) == {"b"}


def test_a_question_about_the_nominated_node_alone_gives_nothing_up(site: Site) -> None:
    site.evict()

    site.filter(NEW, NODES[1], nominated=NODES[1])

    assert site.need() is None


def test_evictions_that_do_not_show_are_forgotten(site: Site) -> None:
    site.filter(NEW)
    need = site.need()
    assert need is not None
    site.preemption.begin(need, NODES[0], frozenset({UID_A}))
    site.filter(NEW)
    assert site.need() is None

    site.told.now += BEGUN
    site.filter(NEW)

    assert site.need() is not None


def test_a_pod_that_could_not_be_helped_is_left_alone_for_a_while(site: Site) -> None:
    site.filter(NEW)
    need = site.need()
    assert need is not None
    site.preemption.give_up(need)
    site.filter(NEW)
    assert site.need() is None

    site.told.now += REST
    site.filter(NEW)

    assert site.need() is not None


def test_when_only_some_could_be_evicted_the_others_are_needed_next_time(site: Site) -> None:
    big = node("a").with_gpus(2).annotation_path()
    second = pod("second").wants(gpus=1).on("a").assigned({"main": [gpu_id("a", 1)]})
    site.told.node(big)
    site.told.pod(second)
    asking = NEW.wants(gpus=2)
    site.told.pod(asking.uid("uid-big"))
    asking = asking.uid("uid-big")
    site.filter(asking)
    need = site.need()
    assert need is not None
    site.preemption.begin(need, NODES[0], frozenset({UID_A, PodUid("uid-second")}))
    site.preemption.limit(need, NODES[0], frozenset({UID_A}))
    site.told.pod(ON_A.deleting())

    site.filter(asking)

    assert site.need() is not None


def test_the_scheduler_may_evict_where_gpus_come_free(site: Site) -> None:
    candidates = {NODES[0]: frozenset({UID_A}), NODES[1]: frozenset({PodUid("no GPU pod")})}

    assert site.preemption.vetted(facts(NEW), candidates, nominated=NOWHERE) == ["a"]


def test_the_scheduler_may_evict_as_it_likes_for_pods_without_gpus(site: Site) -> None:
    plain = facts(pod("plain"))

    assert site.preemption.vetted(plain, BOTH, nominated=NOWHERE) == ["a", "b"]


def test_the_scheduler_does_not_go_on_while_its_victims_are_there(site: Site) -> None:
    assert site.vetted() == ["a", "b"]
    # It asks again before the last of its victims is seen to leave.
    assert site.vetted(nominated=NODES[0]) == []
    site.told.pod(ON_A.deleting())
    site.told.now += 3600

    assert site.vetted(nominated=NODES[0]) == []


def test_the_scheduler_may_try_again_where_nothing_came_of_it(site: Site) -> None:
    assert site.vetted() == ["a", "b"]
    site.told.now += BEGUN

    assert site.vetted(nominated=NODES[0]) == ["a", "b"]


def test_one_of_the_two_evicts_never_both(site: Site) -> None:
    site.filter(NEW)
    assert site.vetted() == ["a", "b"]

    assert site.need() is None


def test_the_evictor_withdraws_when_the_scheduler_was_faster(site: Site) -> None:
    site.filter(NEW)
    need = site.need()
    assert need is not None
    assert site.vetted() == ["a", "b"]

    assert not site.preemption.begin(need, NODES[0], frozenset({UID_A}))


def test_the_scheduler_evicts_nobody_when_the_evictor_was_faster(site: Site) -> None:
    site.evict()

    assert site.vetted() == []


def test_what_the_scheduler_freed_is_kept_for_the_pod(site: Site) -> None:
    site.vetted()
    site.told.pod(ON_A.deleting())
    site.filter(NEW, NODES[0], nominated=NODES[0])

    site.told.pod(ON_A, EventKind.DELETED)

    assert site.filter(OTHER) == []
    assert site.filter(NEW, NODES[0], nominated=NODES[0]) == ["a"]


def test_a_pod_that_is_gone_keeps_nothing(site: Site) -> None:
    site.evict()
    site.filter(NEW)
    site.told.pod(NEW, EventKind.DELETED)
    site.told.pod(ON_A, EventKind.DELETED)
    site.preemption.renew()

    assert site.filter(OTHER) == ["a"]
