"""Bind against an API server that answers, refuses, or says nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from extender.binding.janitor import Janitor
from extender.metrics import Refusal
from gpus.annotations import ASSIGNED, ASSIGNED_NODE, DEVICES_FROM
from kube.reflector import EventKind
from tests.builders import PodBuilder, node, pod
from tests.extender.binding import Process
from tests.fakes.api_server import Answer, Fault, Reply, Request
from tests.fakes.binding_api import BindingApi, answer_lost, lost_on_the_way, on, refused

ANN = node("ann").with_gpus(4).annotation_path()
PLUG = node("plug").with_gpus(4).plugin_path()
POD = pod("p").wants(gpus=2)
LIST = f"default/{POD.raw()['metadata']['annotations'][DEVICES_FROM]}"

Start = Callable[..., BindingApi]


@pytest.fixture
def serve() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *pods: stack.enter_context(BindingApi(*pods))


def stored(api: BindingApi, name: str = "p") -> Any:
    return api.pods[f"default/{name}"]


def assigned(api: BindingApi, name: str = "p") -> Any:
    return json.loads(stored(api, name)["metadata"]["annotations"][ASSIGNED])


def test_on_the_annotation_path_two_writes_bind_a_pod(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN)

    assert process.bind(POD, "ann") == ""

    assert api.calls() == ["POST configmaps", "POST pods/p/binding"]
    assert stored(api)["spec"]["nodeName"] == "ann"
    assert assigned(api) == {
        "v": 1,
        "epoch": 1,
        "containers": {"main": ["GPU-ann-0", "GPU-ann-1"]},
    }
    config_map = api.config_maps[LIST]
    assert config_map["data"] == {"main": "GPU-ann-0,GPU-ann-1"}
    assert config_map["immutable"] is True
    assert config_map["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}
    assert config_map["metadata"]["annotations"] == {
        ASSIGNED: stored(api)["metadata"]["annotations"][ASSIGNED],
        ASSIGNED_NODE: "ann",
    }
    assert config_map["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "p",
            "uid": "uid-p",
            "controller": False,
            "blockOwnerDeletion": False,
        }
    ]


def test_on_the_plugin_path_one_write_binds_a_pod(serve: Start) -> None:
    api = serve()
    process = Process(api, PLUG)
    api.put(POD)
    process.told.pod(POD, EventKind.ADDED)

    assert process.bind(POD, "plug") == ""

    assert api.calls() == ["POST pods/p/binding"]
    assert assigned(api) == {"v": 1, "epoch": 1, "containers": {}}
    body = api.requests[0].body
    assert body["metadata"]["uid"] == "uid-p"
    assert body["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}


def test_what_another_nodes_bind_left_must_not_overrule_the_plugin(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN, PLUG)
    api.trouble = on("POST /binding", refused(429))
    process.bind(POD, "ann")
    assert list(api.config_maps) == [LIST]

    assert process.bind(POD, "plug") == ""
    assert api.config_maps == {}


def test_a_pod_without_gpus_is_bound_as_it_is(serve: Start) -> None:
    plain = pod("p")
    api = serve(plain)

    assert Process(api, ANN).bind(plain, "ann") == ""
    assert assigned(api)["containers"] == {}


def test_a_pod_that_the_watch_has_not_shown_is_read(serve: Start) -> None:
    api = serve()
    process = Process(api, ANN)
    api.put(POD)

    assert process.bind(POD, "ann") == ""
    assert api.calls()[0] == "GET pods/p"


def test_binding_twice_succeeds_twice_and_gives_once(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN)

    assert [process.bind(POD, "ann") for _ in range(3)] == ["", "", ""]
    process.list_pods()
    assert process.bind(POD, "ann") == ""
    assert process.free("ann") == 2


def test_bound_elsewhere_is_refused(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN, PLUG)
    process.bind(POD, "ann")

    # Before the watch shows the pod, its Binding is only known to have been sent.
    assert process.bind(POD, "plug") == "node plug: GPU holder unknown"
    process.list_pods()
    assert "already bound to node ann" in process.bind(POD, "plug")
    assert (process.free("ann"), process.free("plug")) == (2, 4)
    assert (process.refusals(Refusal.FULL), process.refusals(Refusal.PLACED)) == (1, 1)


def test_a_node_that_filled_up_meanwhile_is_refused_with_its_reason(serve: Start) -> None:
    other = pod("q").wants(gpus=3)
    api = serve(POD, other)
    process = Process(api, ANN)
    process.bind(other, "ann")

    assert process.bind(POD, "ann") == "node ann: not enough free GPUs or GPU memory"
    assert process.refusals(Refusal.FULL) == 1
    assert "inventory missing" in process.bind(POD, "nowhere")


def test_only_the_leader_binds(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN, epoch=None)

    assert "does not lead" in process.bind(POD, "ann")
    assert api.calls() == []


def test_a_leader_of_the_past_is_refused_by_the_api_server(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN, PLUG)
    api.epoch = 2

    assert "403" in process.bind(POD, "ann")
    assert "403" in process.bind(POD, "plug")
    assert api.config_maps == {}
    assert (process.free("ann"), process.free("plug")) == (4, 4)


@pytest.mark.parametrize("status", [400, 403, 422, 429])
@pytest.mark.parametrize("call", ["POST /configmaps", "POST /binding"])
def test_a_refusal_gives_everything_back(serve: Start, call: str, status: int) -> None:
    api = serve(POD)
    process = Process(api, ANN)
    api.trouble = on(call, refused(status))

    assert str(status) in process.bind(POD, "ann")
    assert process.free("ann") == 4
    assert process.bind(POD, "ann") == ""


@pytest.mark.parametrize("trouble", [answer_lost, refused(500), refused(504)])
def test_a_binding_without_an_answer_is_looked_up(serve: Start, trouble: Any) -> None:
    api = serve(POD)
    process = Process(api, ANN)
    api.trouble = on("POST /binding", trouble)

    answer = process.bind(POD, "ann")

    took_effect = trouble is answer_lost
    assert stored(api)["spec"].get("nodeName", "") == ("ann" if took_effect else "")
    assert (answer == "") is took_effect
    assert process.free("ann") == 2
    assert process.bind(POD, "ann") == ""
    assert process.free("ann") == 2


def test_a_binding_that_may_still_arrive_keeps_its_devices(serve: Start) -> None:
    api = serve(POD, pod("q").wants(gpus=3))
    process = Process(api, ANN)
    api.trouble = on("POST /binding", lost_on_the_way)

    assert "is not known" in process.bind(POD, "ann")

    assert process.refusals(Refusal.UNANSWERED) == 1
    assert (
        process.bind(pod("q").wants(gpus=3), "ann")
        == "node ann: not enough free GPUs or GPU memory"
    )
    api.trouble = on("POST /binding", refused(429))
    assert "429" in process.bind(POD, "ann")
    assert process.free("ann") == 2


def test_the_janitor_gives_back_what_no_binding_can_claim(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN)
    api.trouble = on("POST /binding", lost_on_the_way)
    process.bind(POD, "ann")
    janitor = Janitor(api.client(), process.told.cluster, settled_after=90)

    process.told.now = 89
    janitor.look()
    assert process.free("ann") == 2
    process.told.now = 90
    janitor.look()
    assert process.free("ann") == 4


def test_the_janitor_keeps_what_is_bound_and_what_cannot_be_looked_up(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN)
    process.bind(POD, "ann")
    janitor = Janitor(api.client(), process.told.cluster, settled_after=0)

    janitor.look()
    api.trouble = on("GET /p", refused(500))
    janitor.look()
    assert process.free("ann") == 2

    del api.pods["default/p"]
    janitor.look()
    assert process.free("ann") == 4


@pytest.mark.parametrize(
    "meanwhile",
    [POD.uid("another"), POD.deleting(), POD.on("elsewhere"), POD.on("ann").phase("Failed"), None],
)
def test_a_pod_that_changed_meanwhile_is_not_bound(
    serve: Start, meanwhile: PodBuilder | None
) -> None:
    api = serve(POD)
    process = Process(api, ANN)
    if meanwhile is None:
        del api.pods["default/p"]
    else:
        api.put(meanwhile)

    assert process.bind(POD, "ann") != ""
    assert process.free("ann") == 4
    if meanwhile is not None:
        assert stored(api)["spec"].get("nodeName") == meanwhile.raw()["spec"].get("nodeName")


def test_a_request_that_cannot_be_granted_is_explained(serve: Start) -> None:
    strange = pod("p").wants(gpus=5000)

    assert "5000 devices are more than any node has" in Process(serve(strange), ANN).bind(
        strange, "ann"
    )


def test_a_copy_that_names_anothers_device_list_is_refused(serve: Start) -> None:
    name = LIST.partition("/")[2]
    copy = pod("copy").wants(gpus=1).devices_from(name).created("2026-06-01T00:00:00Z")
    api = serve(POD, copy)
    process = Process(api, ANN, PLUG)
    process.bind(POD, "ann")
    process.list_pods()

    for place in ("ann", "plug"):
        assert "another pod's" in process.bind(copy, place)

    # Even when the original is gone: until its ConfigMap is collected, it would be read.
    del api.pods["default/p"]
    process.told.pod(POD, EventKind.DELETED)
    for place in ("ann", "plug"):
        assert "annotation gpudetour.io/devices-from" in process.bind(copy, place)
    assert process.refusals(Refusal.DEVICE_LIST) == 2
    api.config_maps.clear()
    assert process.bind(copy, "plug") == ""


def test_a_device_list_of_nobody_is_not_touched(serve: Start) -> None:
    api = serve(POD)
    strange = {"metadata": {"uid": "x", "name": LIST.partition("/")[2]}, "data": {"main": "GPU-x"}}
    api.config_maps[LIST] = strange

    assert "tells the GPUs of another pod" in Process(api, ANN).bind(POD, "ann")
    assert api.config_maps[LIST] == strange


def test_two_calls_for_one_pod_work_one_after_the_other(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN)
    arrived, go_on = threading.Event(), threading.Event()

    def wait(_request: Request, proceed: Callable[[], Reply]) -> Reply:
        arrived.set()
        assert go_on.wait(10)
        return proceed()

    api.trouble = on("POST /binding", wait)
    answers: list[str] = []

    def bind() -> None:
        answers.append(process.bind(POD, "ann"))

    calls = [threading.Thread(target=bind) for _ in range(2)]
    calls[0].start()
    assert arrived.wait(10)
    calls[1].start()
    go_on.set()
    for call in calls:
        call.join(10)

    assert answers == ["", ""]
    assert process.free("ann") == 2


def test_bind_goes_on_when_the_answer_hangs(serve: Start) -> None:
    api = serve(POD)
    process = Process(api, ANN)

    def hang_after(_request: Request, proceed: Callable[[], Reply]) -> Reply:
        assert isinstance(proceed(), Answer)
        return Fault.HANG

    api.trouble = on("POST /binding", hang_after)

    assert process.bind(POD, "ann") == ""
    assert stored(api)["spec"]["nodeName"] == "ann"
