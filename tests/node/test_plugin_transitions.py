"""Plugins come, die, hang and return under a running pod, on a real kubelet.

After each transition the same holds: the pod runs on untouched, no GPU has two holders, kubelet
offers the right number in time, and the Node told it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from localcluster.foreignplugin import Foreign
from localcluster.waiting import until
from tests.node.gpu_node import GPU, GpuNode, annotations_of, containers, holders, is_running
from tests.node.transitions import PROMISED, Told, Transitions, held_by

pytestmark = pytest.mark.node

OWN, OTHER = "OwnDevicePlugin", "OtherDevicePlugin"


class Site:
    """The node with a pod that holds a GPU from the first plugin on."""

    def __init__(self, node: GpuNode, transitions: Transitions) -> None:
        self.node = node
        self._transitions = transitions
        self._pods: dict[str, list[tuple[str, int]]] = {}
        #: What kubelet gave them, as it stands since they run.
        self._held: dict[str, str] = {}
        self.made = 0

    def foreign(self) -> Foreign:
        return Foreign(self.node.plugins, sorted(self.node.uuids))

    def run(self, name: str) -> None:
        """Create a pod that has to survive all that follows."""
        # Node status may tell of the plugin before this one still.
        self.node.gives_out(2)
        self.node.create_pod(name)
        self._pods[name] = containers(self.node.running(name))
        self._held = held_by(self.node)
        self.node.node_when(lambda node: set(holders(node)) == set(self._held))

    def becomes(self, cause: str, change: Callable[[], object]) -> Told:
        """Make a change; check all that has to hold after it."""
        told = self._transitions.during(change, cause=cause, offered=2)
        self.made += 1
        assert told.causes == (cause,)
        assert len(told.events) == 1, told.events
        assert told.seconds <= PROMISED
        # Never, not even for a moment, was it told that a held GPU is free.
        assert all(seen >= self._held.keys() for seen in told.in_use)
        for name, before in self._pods.items():
            assert containers(self.node.running(name)) == before
        assert held_by(self.node) == self._held
        assert sorted(self._held.values()) == sorted(self._pods)
        return told


@pytest.fixture
def site(gpu_node: GpuNode) -> Iterator[Site]:
    transitions = Transitions(gpu_node)
    with transitions.watching():
        site = Site(gpu_node, transitions)
        yield site
        # An agent that ends writes the Events that wait: there is none that we have not seen.
        gpu_node.stop_agent()
        assert transitions.events_in_all() == site.made


def test_another_plugin_dies_and_returns_and_dies_with_kubelet(site: Site) -> None:
    node = site.node
    other = site.foreign()
    with other:
        node.offers(2)
        site.becomes(OTHER, node.start_agent)
        site.run("old")

        site.becomes(OWN, other.kill)
        site.run("new")
        with ExitStack() as stack:
            returned = site.foreign()
            site.becomes(OTHER, lambda: stack.enter_context(returned))

            def both_die() -> None:
                returned.kill()
                node.cluster.node.restart_kubelet()

            site.becomes(OWN, both_die)
            # Both GPUs are held; a third pod is refused by kubelet, not given a GPU of others.
            node.create_pod("third")
            third = node.cluster.wait_for(
                "/api/v1/namespaces/default/pods/third",
                lambda pod: pod["status"].get("phase") == "Failed",
            )
            assert GPU in third["status"]["message"]


def test_another_plugin_hangs_and_a_fresh_one_takes_its_place(site: Site) -> None:
    node = site.node
    with site.foreign() as other:
        node.offers(2)
        site.becomes(OTHER, node.start_agent)
        site.run("old")
        with other.hanging():
            site.becomes(OWN, lambda: None)
            other.kill()
            node.gives_out(2)
        # Ours is registered, and so is the next: the last one serves.
        with ExitStack() as stack:
            returned = site.foreign()
            site.becomes(OTHER, lambda: stack.enter_context(returned))
            site.run("new")
            site.becomes(OWN, returned.kill)


def test_holders_are_known_when_their_plugin_is_dead_and_ours_stays_away(gpu_node: GpuNode) -> None:
    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)):
        gpu_node.offers(2)
        gpu_node.label({"gpudetour.io/path": "annotation"})
        gpu_node.start_agent()
        gpu_node.path_is("plugin", OTHER)
        uid = gpu_node.create_pod("old")["metadata"]["uid"]
        before = containers(gpu_node.running("old"))
        device = gpu_node.environment("old")["NVIDIA_VISIBLE_DEVICES"]
    # Ours serves on for the pod, whose container kubelet could not start again otherwise.
    node = gpu_node.path_is("draining", "Draining")
    assert "1 pod" in annotations_of(node)["gpudetour.io/path-reason"]
    gpu_node.node_when(lambda seen: holders(seen) == {device: uid})
    assert containers(gpu_node.running("old")) == before


def test_a_container_of_ours_starts_again_while_another_plugin_serves(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.offers(2)
    gpu_node.create_pod("old")
    gpu_node.running("old")
    given = gpu_node.environment("old")
    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)):
        gpu_node.path_is("plugin", OTHER)
        # As after a reboot, where /run is empty and the agent no older than the pod's containers.
        gpu_node.stop_agent()
        (spec,) = gpu_node.cluster.node.cdi.iterdir()
        spec.unlink()
        gpu_node.start_agent()
        until(spec.exists, timeout=30, what="the CDI spec again")

        ((container, _),) = containers(gpu_node.pod("old"))
        identity = container.removeprefix("containerd://")
        gpu_node.cluster.node.ctr("tasks", "kill", "--signal", "SIGKILL", identity)

        gpu_node.cluster.wait_for(
            "/api/v1/namespaces/default/pods/old",
            lambda pod: is_running(pod) and containers(pod)[0][1] >= 1,
        )
        again = gpu_node.environment("old")
    assert given_by_cdi(again) == given_by_cdi(given)
    assert given_by_cdi(again)


def given_by_cdi(environment: dict[str, str]) -> set[str]:
    """The GPUs that CDI says a container has."""
    return {v for name, v in environment.items() if name.startswith("GPUDETOUR_DEVICE_")}
