"""What the evictor does when the API server does not do as it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from extender.metrics import Metrics, Preempted
from extender.placement.fit import ask_of
from extender.preempting.eviction import Evictor
from extender.preempting.preemption import Need, Preemption
from gpus.annotations import assigned_prefix
from gpus.model import NodeName
from kube.client import Client
from kube.events import EventRecorder
from tests.builders import PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import Told, facts
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, refusal

NODE = "n"
NEW = pod("new").wants(gpus=2).of_priority(9)
HOLDERS = [
    pod(f"holder-{i}").wants(gpus=1).of_priority(i).on(NODE).assigned({"main": [gpu_id(NODE, i)]})
    for i in range(3)
]
TOO_MANY = refusal(429, "TooManyRequests")
#: EvictionREST.Create answers 201 with this where a pod has more than one budget.
TWO_BUDGETS = Answer(status=201, body={"kind": "Status", "status": "Failure", "code": 500})


class Api(FakeApiServer):
    """Takes every eviction unless `trouble` answers instead; has no budget unless it is told."""

    def __init__(self) -> None:
        super().__init__(self._reply_to)
        self.new = NEW
        self.budgets: list[dict[str, Any]] = []
        self.trouble: Callable[[str, bool], Reply | None] = lambda _name, _dry_run: None

    def _reply_to(self, request: Request) -> Reply:
        *_, kind, name = request.path.split("/")
        if kind == "pods":
            found = {built.name: built for built in (self.new, *HOLDERS)}[name]
            return Answer(body=found.raw())
        if name == "poddisruptionbudgets":
            return Answer(body={"metadata": {"resourceVersion": "1"}, "items": self.budgets})
        if name == "eviction":
            answer = self.trouble(kind, request.params.get("dryRun") == "All")
            return answer or Answer(status=201, body={"kind": "Status", "status": "Success"})
        return Answer(status=201)

    def asked(self, *, dry_run: bool) -> list[str]:
        """The names of the pods that were to be evicted."""
        evictions = [r for r in self.requests if r.path.endswith("/eviction")]
        found = [r for r in evictions if (r.params.get("dryRun") == "All") == dry_run]
        return [r.path.split("/")[-2] for r in found]


class Site:
    """A node whose three GPUs are in use, and a pod that wants two of them."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.told = Told(node(NODE).with_gpus(3).annotation_path())
        for built in (*HOLDERS, NEW):
            self.told.pod(built)
        cluster = self.told.cluster
        self.preemption = Preemption(cluster, evicting=True, clock=lambda: self.told.now)
        self.registry = CollectorRegistry()
        self.epoch: int | None = 7
        client = Client(api.connection(), timeout=2.0)
        self.events = EventRecorder(client, component="extender", instance="test")
        self.evictor = Evictor(
            client,
            cluster,
            self.preemption,
            epoch=lambda: self.epoch,
            events=self.events,
            metrics=Metrics(self.registry, snapshot=cluster.snapshot, epoch=lambda: self.epoch),
        )

    def work(self, new: PodBuilder = NEW) -> Preempted:
        self.api.new = new
        read = facts(new)
        assert read.demand is not None
        ask = ask_of(read.demand, listed=True)
        return self.evictor.work(Need(pod=read, ask=ask, names=[NodeName(NODE)], due=0))

    def told_of(self) -> dict[str, str]:
        """Pod to reason of the Events that were written."""
        stop = threading.Event()
        stop.set()
        self.events.run(stop)
        written = [r.body for r in self.api.requests if r.path.endswith("/events")]
        return {body["involvedObject"]["name"]: body["reason"] for body in written}


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        yield api


@pytest.fixture
def site(api: Api) -> Site:
    return Site(api)


def test_all_are_tried_before_any_is_evicted(site: Site, api: Api) -> None:
    assert site.work() is Preempted.EVICTED

    evictions = [r for r in api.requests if r.path.endswith("/eviction")]
    assert [r.params.get("dryRun") for r in evictions] == ["All", "All", None, None]
    assert api.asked(dry_run=False) == ["holder-0", "holder-1"]
    assert site.told_of() == {
        "holder-0": "Preempted",
        "holder-1": "Preempted",
        "new": "Preempting",
    }


def test_an_eviction_names_the_very_pod_and_the_epoch(site: Site, api: Api) -> None:
    site.work()

    (first, *_) = [r for r in api.requests if r.path.endswith("/eviction")]
    assert first.body["deleteOptions"] == {"preconditions": {"uid": "uid-holder-0"}}
    meta = first.body["metadata"]
    assert meta["labels"] == {"gpudetour.io/gpu": "true"}
    assert meta["annotations"]["gpudetour.io/assigned"].startswith(assigned_prefix(7))


@pytest.mark.parametrize("no", [TOO_MANY, TWO_BUDGETS, refusal(403, "Forbidden"), refusal(500)])
def test_others_go_for_one_who_may_not_be_evicted(site: Site, api: Api, no: Answer) -> None:
    api.trouble = lambda name, _dry_run: no if name == "holder-0" else None

    assert site.work() is Preempted.EVICTED
    assert api.asked(dry_run=False) == ["holder-1", "holder-2"]


def test_nobody_is_evicted_when_too_few_may_be(site: Site, api: Api) -> None:
    api.trouble = lambda name, _dry_run: None if name == "holder-2" else TOO_MANY

    assert site.work() is Preempted.REFUSED
    assert api.asked(dry_run=False) == []
    assert site.told_of() == {"new": "PreemptionRefused"}


def test_nobody_is_evicted_when_a_budget_does_not_allow_both(site: Site, api: Api) -> None:
    selector: dict[str, Any] = {"matchLabels": {"gpudetour.io/gpu": "true"}}
    api.budgets = [
        {
            "metadata": {"namespace": "default"},
            "spec": {"selector": selector},
            "status": {"disruptionsAllowed": 1},
        }
    ]

    assert site.work() is Preempted.REFUSED
    assert api.asked(dry_run=False) == []


def test_no_answer_is_no_permission(site: Site, api: Api) -> None:
    api.trouble = lambda _name, _dry_run: Fault.CUT

    assert site.work() is Preempted.REFUSED
    assert api.asked(dry_run=False) == []


def test_who_is_gone_already_need_not_be_evicted(site: Site, api: Api) -> None:
    api.trouble = lambda name, _dry_run: refusal(404) if name == "holder-0" else None

    assert site.work() is Preempted.EVICTED
    assert site.told_of() == {"holder-1": "Preempted", "new": "Preempting"}


def test_when_the_budget_shrinks_meanwhile_the_rest_is_waited_for(site: Site, api: Api) -> None:
    api.trouble = lambda name, dry_run: None if dry_run or name == "holder-0" else TOO_MANY

    assert site.work() is Preempted.EVICTED
    assert api.asked(dry_run=False) == ["holder-0", "holder-1"]
    assert site.told_of() == {"holder-0": "Preempted", "new": "Preempting"}


def test_nothing_is_claimed_when_the_first_eviction_fails_after_all(site: Site, api: Api) -> None:
    api.trouble = lambda _name, dry_run: None if dry_run else TOO_MANY

    assert site.work() is Preempted.REFUSED
    site.told.pod(HOLDERS[0].phase("Succeeded"))
    site.told.now += 60
    site.told.reserved(pod("other").wants(gpus=1), NODE)


@pytest.mark.parametrize(
    "new",
    [
        NEW.uid("another"),
        NEW.deleting(),
        NEW.on(NODE),
        NEW._with(
            spec={
                "affinity": {
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}
                }
            }
        ),
    ],
    ids=["created again", "being deleted", "bound", "wants to be beside others"],
)
def test_nobody_goes_for_a_pod_that_may_not_be_placed_then(
    site: Site, api: Api, new: PodBuilder
) -> None:
    api.new = new
    read = facts(NEW)
    assert read.demand is not None
    need = Need(pod=read, ask=ask_of(read.demand, listed=True), names=[NodeName(NODE)], due=0)

    assert site.evictor.work(need) is Preempted.SKIPPED
    assert api.asked(dry_run=True) == []


def test_who_does_not_lead_evicts_nobody(site: Site, api: Api) -> None:
    site.epoch = None

    assert site.work() is Preempted.SKIPPED
    assert api.requests == []


def test_it_is_enough_to_wait_for_those_who_leave(site: Site, api: Api) -> None:
    for holder in HOLDERS[:2]:
        site.told.pod(holder.deleting())

    assert site.work() is Preempted.WAITING
    assert api.asked(dry_run=True) == []


def test_nobody_is_evicted_for_what_only_a_less_important_pod_waits_for(
    site: Site, api: Api
) -> None:
    for holder in HOLDERS[:2]:
        site.told.pod(holder.deleting())
    lesser = pod("lesser").wants(gpus=2).of_priority(3)
    site.told.pod(lesser)
    assert site.work(lesser) is Preempted.WAITING

    assert site.work() is Preempted.WAITING

    assert api.asked(dry_run=True) == []
    assert site.told.cluster.snapshot().holds.keys() == {facts(NEW).uid}
    assert site.work(lesser) is Preempted.NOBODY


def test_an_unreachable_api_server_fails_the_attempt(site: Site, api: Api) -> None:
    api.__exit__(None, None, None)

    assert site.work() is Preempted.FAILED
    name = "gpudetour_extender_preemptions_total"
    assert site.registry.get_sample_value(name, {"outcome": "failed"}) == 1
