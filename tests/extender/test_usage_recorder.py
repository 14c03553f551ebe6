"""The record of usage on a real API server: several leaders, one truth."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from extender.placement.ledger import Ledger
from extender.usage.recorder import Recorder
from gpus.usage import CONFIG_MAP_PREFIX, Month, read_month
from kube.client import Client
from kube.connection import connect
from kube.errors import NotFound
from localcluster.cluster import LocalCluster
from tests.builders import gpu_id, node, pod
from tests.extender.ledgers import ledger

pytestmark = pytest.mark.controlplane

START = datetime(2026, 11, 30, 23, 0, tzinfo=UTC)


class Records:
    """A namespace of its own, and a clock that the test moves."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.client = Client(connect(str(cluster.admin_kubeconfig)))
        self.namespace = f"usage-{uuid.uuid4().hex[:8]}"
        self.client.create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        self.now = START

    def after(self, **time: float) -> None:
        self.now += timedelta(**time)

    def leader(self, *, gpus: int) -> Leader:
        return Leader(self, gpus=gpus)

    def month(self, name: str = "2026-11") -> Month:
        found = self.client.get(f"{self.path}/{CONFIG_MAP_PREFIX}{name}")
        month, faults = read_month(name, found["data"])
        assert not faults
        return month

    def seconds(self, name: str = "2026-11") -> float:
        return sum(self.month(name).held.get("team", {}).values())


class Leader:
    """A recorder whose ledger knows a pod that holds `gpus` GPUs."""

    def __init__(self, records: Records, *, gpus: int) -> None:
        self.leads = True
        self.recorder = Recorder(
            records.client,
            lambda: _ledger(gpus),
            namespace=records.namespace,
            leading=lambda: self.leads,
            every=300,
            clock=lambda: records.now,
        )


def _ledger(gpus: int) -> Ledger:
    n = node("n").with_gpus(8).annotation_path()
    if not gpus:
        return ledger([n])
    given = {"main": [gpu_id("n", index) for index in range(gpus)]}
    return ledger([n], [pod("a", "team").wants(gpus=gpus).on("n").assigned(given)])


@pytest.fixture
def records(control_plane: LocalCluster) -> Iterator[Records]:
    found = Records(control_plane)
    yield found
    found.client.delete(f"/api/v1/namespaces/{found.namespace}")


def test_what_is_held_is_written_when_it_is_due(records: Records) -> None:
    leader = records.leader(gpus=2)
    for _ in range(60):
        leader.recorder.look()
        records.after(seconds=10)

    assert records.seconds() == 2 * 300
    assert sum(records.month().installed.values()) == 8 * 300


def test_a_clean_hand_over_loses_and_doubles_nothing(records: Records) -> None:
    first, second = records.leader(gpus=1), records.leader(gpus=1)
    second.leads = False
    first.recorder.look()
    records.after(seconds=100)
    first.recorder.look()
    first.leads, second.leads = False, True
    first.recorder.look()
    records.after(seconds=20)
    second.recorder.look()
    records.after(seconds=60)
    second.recorder.look()
    second.recorder.write()

    assert records.seconds() == 180


def test_two_that_both_think_that_they_lead_count_time_once(records: Records) -> None:
    one, other = records.leader(gpus=1), records.leader(gpus=1)
    for _ in range(100):
        one.recorder.look()
        other.recorder.look()
        records.after(seconds=10)
    one.recorder.write()
    other.recorder.write()

    assert records.seconds() == 990


def test_writers_at_the_same_moment_count_time_once(records: Records) -> None:
    leaders = [records.leader(gpus=1) for _ in range(4)]
    for leader in leaders:
        leader.recorder.look()
    records.after(seconds=100)
    for leader in leaders:
        leader.recorder.look()

    threads = [threading.Thread(target=leader.recorder.write) for leader in leaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for leader in leaders:
        leader.recorder.write()

    assert records.seconds() == 100


def test_a_frozen_leader_that_wakes_up_adds_nothing(records: Records) -> None:
    frozen, next_one = records.leader(gpus=8), records.leader(gpus=1)
    frozen.recorder.look()
    records.after(seconds=30)
    frozen.recorder.look()
    frozen.recorder.write()
    records.after(seconds=60)
    next_one.recorder.look()
    records.after(seconds=60)
    next_one.recorder.look()
    next_one.recorder.write()
    frozen.recorder.look()
    frozen.recorder.write()

    assert records.seconds() == 8 * 30 + 120


def test_time_in_which_nobody_led_is_filled_in_only_if_it_was_short(records: Records) -> None:
    first = records.leader(gpus=1)
    first.recorder.look()
    records.after(seconds=60)
    first.recorder.look()
    first.recorder.write()
    records.after(hours=5)
    later = records.leader(gpus=1)
    later.recorder.look()
    records.after(seconds=60)
    later.recorder.look()
    later.recorder.write()

    assert records.seconds() + records.seconds("2026-12") == 120


def test_each_month_has_a_record_of_its_own(records: Records) -> None:
    records.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    leader = records.leader(gpus=1)
    for _ in range(19):
        leader.recorder.look()
        records.after(seconds=10)
    leader.recorder.write()

    assert (records.seconds("2026-11"), records.seconds("2026-12")) == (60, 120)


def test_who_does_not_lead_writes_nothing(records: Records) -> None:
    follower = records.leader(gpus=1)
    follower.leads = False
    for _ in range(100):
        follower.recorder.look()
        records.after(seconds=10)
    follower.recorder.write()

    with pytest.raises(NotFound):
        records.month()


def test_a_record_of_the_future_stops_nobody(records: Records) -> None:
    """A leader whose clock was a day ahead."""
    records.after(days=-10)
    ahead = records.leader(gpus=1)
    records.after(days=1)
    ahead.recorder.look()
    records.after(seconds=10)
    ahead.recorder.look()
    ahead.recorder.write()
    records.after(days=-1)
    leader = records.leader(gpus=1)
    leader.recorder.look()
    records.after(seconds=100)
    leader.recorder.look()
    leader.recorder.write()

    assert records.seconds() == 110
