"""A leader dies between any two steps of a bind; the next one finishes the work."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from gpus.annotations import ASSIGNED, DEVICES_FROM
from tests.builders import PodBuilder, node, pod
from tests.extender.binding import Process
from tests.fakes.api_server import Fault, Reply, Request
from tests.fakes.binding_api import BindingApi, Trouble, on, refused

GIB = 1 << 30
ANN = node("ann").with_gpus(4).cards(memory_bytes=24 * GIB).annotation_path()
OTHER = node("other").with_gpus(4).cards(memory_bytes=24 * GIB).annotation_path()
PLUG = node("plug").with_gpus(4).plugin_path()
NODES = (ANN, OTHER, PLUG)

POD, RIVAL = pod("p").wants(gpus=2).sidecar("s", gpus=1), pod("q").wants(gpus=3)
SHARE = pod("p").wants(memory="20Gi").sidecar("s", memory="1Gi")
#: A rival for the memory of the GPU that the dead leader chose, where another one is free.
SHARING = pod("q").wants(memory="10Gi")


def dead_after(calls: int, *, last_takes_effect: bool) -> Trouble:
    """The process dies at its `calls`-th call: no answer reaches it, and no other call is made."""
    count = itertools.count(1)

    def trouble(_request: Request, proceed: Callable[[], Reply]) -> Reply:
        number = next(count)
        if number < calls:
            return proceed()
        if number == calls and last_takes_effect:
            proceed()
        return Fault.CUT

    return trouble


def holders(api: BindingApi) -> dict[str, str]:
    """Return which pod holds which device, as an auditor reads it; no device may have two."""
    found: dict[str, str] = {}
    for key, stored in api.pods.items():
        text = stored["metadata"]["annotations"].get(ASSIGNED)
        if text is None:
            continue
        for device in {d for ids in json.loads(text)["containers"].values() for d in ids}:
            assert device not in found, f"{device} is held by {found[device]} and {key}"
            found[device] = key
    return found


def check(api: BindingApi, builder: PodBuilder, on_node: str) -> None:
    """Check that the pod is bound there and that its containers read what it was assigned."""
    stored = api.pods[f"default/{builder.name}"]
    assert stored["spec"]["nodeName"] == on_node
    annotations = stored["metadata"]["annotations"]
    told = api.config_maps.get(f"default/{annotations[DEVICES_FROM]}", {"data": {}})["data"]
    containers: dict[str, list[str]] = json.loads(annotations[ASSIGNED])["containers"]
    assert told == {name: ",".join(devices) for name, devices in containers.items()}
    assert bool(told) is (on_node != "plug")
    holders(api)


@pytest.mark.parametrize("last_takes_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("again_on", ["ann", "other", "plug"])
@pytest.mark.parametrize("rival", ["none", "first", "between"])
def test_the_next_leader_finishes_what_broke_off(
    calls: int, last_takes_effect: bool, again_on: str, rival: str
) -> None:
    with BindingApi(POD, RIVAL) as api:
        dying = Process(api, *NODES)
        api.trouble = dead_after(calls, last_takes_effect=last_takes_effect)
        dying.bind(POD, "ann")

        api.trouble = lambda _request, proceed: proceed()
        api.epoch = 2
        leader = Process(api, *NODES, epoch=2)
        if rival != "none":
            assert leader.bind(RIVAL, "ann" if rival == "first" else again_on) in (
                "",
                "node ann: not enough free GPUs or GPU memory",
            )
        answer = leader.bind(POD, again_on)

        bound_before = calls == 2 and last_takes_effect
        if bound_before and again_on != "ann":
            assert "already bound to node ann" in answer
            check(api, POD, "ann")
        elif answer == "":
            check(api, POD, "ann" if bound_before else again_on)
        else:
            assert rival != "none"
            assert "GPUs" in answer
            assert "nodeName" not in api.pods["default/p"]["spec"]
        holders(api)


@pytest.mark.parametrize("last_takes_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("rival", [None, SHARING, RIVAL, RIVAL.wants(gpus=4)])
def test_the_next_leader_finishes_a_share_that_broke_off(
    calls: int, last_takes_effect: bool, rival: PodBuilder | None
) -> None:
    with BindingApi(SHARE, *([rival] if rival is not None else [])) as api:
        dying = Process(api, *NODES)
        api.trouble = dead_after(calls, last_takes_effect=last_takes_effect)
        dying.bind(SHARE, "ann")

        api.trouble = lambda _request, proceed: proceed()
        api.epoch = 2
        leader = Process(api, *NODES, epoch=2)
        refused_rival = "" if rival is None else leader.bind(rival, "ann")
        answer = leader.bind(SHARE, "ann")

        # Four cards for the rival alone are there, or for the share; never for both.
        assert [refused_rival, answer].count("") == (1 if rival == RIVAL.wants(gpus=4) else 2)
        if answer == "":
            check(api, SHARE, "ann")
            text = api.pods["default/p"]["metadata"]["annotations"][ASSIGNED]
            assert json.loads(text)["share"] == 21 * GIB
        holders(api)


def test_what_the_dead_leader_handed_over_is_given_again() -> None:
    with BindingApi(POD, RIVAL) as api:
        dying = Process(api, ANN)
        dying.bind(pod("first").wants(gpus=1), "ann")  # not stored: refused, gives back
        api.trouble = dead_after(1, last_takes_effect=True)
        dying.bind(POD, "ann")
        (before,) = api.config_maps.values()

        api.trouble = lambda _request, proceed: proceed()
        api.epoch = 2
        assert Process(api, ANN, epoch=2).bind(POD, "ann") == ""

        (after,) = api.config_maps.values()
        assert after == before
        check(api, POD, "ann")


def test_what_cannot_be_given_again_is_replaced() -> None:
    with BindingApi(POD, pod("q").wants(gpus=1)) as api:
        api.trouble = dead_after(1, last_takes_effect=True)
        Process(api, ANN).bind(POD, "ann")
        (before,) = api.config_maps.values()

        api.trouble = lambda _request, proceed: proceed()
        api.epoch = 2
        leader = Process(api, ANN, epoch=2)
        assert leader.bind(pod("q").wants(gpus=1), "ann") == ""
        assert leader.bind(POD, "ann") == ""

        after = api.config_maps[f"default/{before['metadata']['name']}"]
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        check(api, POD, "ann")


def test_a_delete_of_the_dead_leader_cannot_hit_the_new_config_map() -> None:
    with BindingApi(POD, pod("q").wants(gpus=1)) as api:
        api.trouble = dead_after(1, last_takes_effect=True)
        Process(api, ANN).bind(POD, "ann")

        # The second leader stops just before its delete is carried out.
        api.epoch = 2
        late: list[Callable[[], Reply]] = []

        def hold_back(_request: Request, proceed: Callable[[], Reply]) -> Reply:
            late.append(proceed)
            return Fault.CUT

        name = POD.raw()["metadata"]["annotations"][DEVICES_FROM]
        api.trouble = on(f"DELETE /{name}", hold_back)
        second = Process(api, ANN, epoch=2)
        second.bind(pod("q").wants(gpus=1), "ann")
        assert second.bind(POD, "ann") != ""

        api.trouble = lambda _request, proceed: proceed()
        api.epoch = 3
        assert Process(api, ANN, epoch=3).bind(POD, "ann") == ""
        for proceed in late:
            proceed()

        assert len(late) == 1
        check(api, POD, "ann")


@pytest.mark.parametrize("status", [403, 500])
def test_a_config_map_that_cannot_be_replaced_binds_nothing(status: int) -> None:
    with BindingApi(POD, pod("q").wants(gpus=1)) as api:
        api.trouble = dead_after(1, last_takes_effect=True)
        Process(api, ANN).bind(POD, "ann")
        api.epoch = 2
        name = POD.raw()["metadata"]["annotations"][DEVICES_FROM]
        api.trouble = on(f"DELETE /{name}", refused(status))
        leader = Process(api, ANN, epoch=2)
        leader.bind(pod("q").wants(gpus=1), "ann")

        assert str(status) in leader.bind(POD, "ann")

        assert leader.free("ann") == 3
        assert "nodeName" not in api.pods["default/p"]["spec"]
        assert leader.bind(POD, "ann") == ""
        check(api, POD, "ann")
