"""What kube-scheduler is told so that its own preemption helps GPU pods where it can, or not at
all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.builders import PodBuilder, gpu_id, pod
from tests.extender.port import Port
from tests.fakes.binding_api import BindingApi

NEW = pod("new").wants(gpus=1).of_priority(9)


def holder(node: str) -> PodBuilder:
    """A pod that holds the one GPU of a node."""
    built = pod(f"on-{node}").wants(gpus=1).on(node)
    return built.assigned({"main": [gpu_id(node, 0)]})


@pytest.fixture
def port() -> Iterator[Port]:
    """Two nodes of one GPU each, both in use."""
    with BindingApi() as api:
        port = Port(api)
        for name in ("a", "b"):
            port.told.pod(holder(name))
        yield port
        port.peer.end()


def asked(*names: str, nominated: str = "") -> dict[str, Any]:
    status = {"status": {"phase": "Pending", "nominatedNodeName": nominated}}
    return {"Pod": NEW.raw() | status, "NodeNames": list(names)}


def candidates(**victims: list[str]) -> dict[str, Any]:
    """The body of preempt: node to the UIDs of those who would be evicted there."""
    nodes = {
        node: {"Pods": [{"UID": uid} for uid in uids], "NumPDBViolations": 1}
        for node, uids in victims.items()
    }
    return {"Pod": NEW.raw(), "NodeNameToMetaVictims": nodes}


def test_kube_scheduler_need_not_try_where_all_gpus_are_in_use(port: Port) -> None:
    assert port.post("filter", asked("a", "b")) == {
        "NodeNames": [],
        "FailedAndUnresolvableNodes": {"a": "all GPUs in use", "b": "all GPUs in use"},
    }


def test_it_waits_where_its_victims_are_leaving(port: Port) -> None:
    port.told.pod(holder("a").deleting())

    assert port.post("filter", asked("a", "b", nominated="a")) == {
        "NodeNames": [],
        "FailedNodes": {"a": "all GPUs in use"},
        "FailedAndUnresolvableNodes": {"b": "all GPUs in use"},
    }
    answer = port.post("filter", asked("a", "b", nominated="b"))
    assert answer["FailedAndUnresolvableNodes"].keys() == {"a", "b"}


def test_victims_come_back_as_they_were_where_they_free_gpus(port: Port) -> None:
    body = candidates(a=["uid-on-a", "another"], b=["another"])

    assert port.post("preempt", body) == {
        "NodeNameToMetaVictims": {
            "a": {"Pods": [{"UID": "uid-on-a"}, {"UID": "another"}], "NumPDBViolations": 1}
        }
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        {"Pod": NEW.raw(), "NodeNameToVictims": {"a": {"Pods": []}}},
        {"Pod": NEW.wants(gpus="1.5").raw(), "NodeNameToMetaVictims": {}},  # type: ignore[arg-type]  # what is tested
    ],
)
def test_who_cannot_answer_lets_nobody_be_evicted(port: Port, body: Any) -> None:
    answer = port.post("preempt", body)

    assert answer["Error"]
    assert "NodeNameToMetaVictims" not in answer


def test_who_does_not_serve_lets_nobody_be_evicted(port: Port) -> None:
    port.fault = "another replica leads"

    assert "NodeNameToMetaVictims" not in port.post("preempt", candidates(a=["uid-on-a"]))
