"""What is observed of kubelet, the Node and its pods becomes the input of the decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from gpus.annotations import ASSIGNED, PATH, PATH_WISH_LABEL
from gpus.model import DeviceId, Gpu, MigInstance, NodeInventory, Path, ResourceName, Source
from kube.objects import ObjectMeta, Pod, PodStatus
from kube.watch import Event, EventKind
from localcluster.foreignplugin import Foreign
from nodeagent.deviceplugin.devices import MigStrategy, Offering, Slicing
from nodeagent.deviceplugin.plugins import Status
from nodeagent.holders import LEARNING
from nodeagent.node import NodeMeta, NodeStatus, OwnNode
from nodeagent.observer import PATIENCE, REMEMBERED, Choices, Observed, Observer
from nodeagent.path import OwnPlugin
from nodeagent.podresources.client import PodResources
from nodeagent.pods import NodePods, PodCounts
from nodeagent.reader import Reading
from tests.fakes.kubelet import FakeKubelet, Held
from tests.nodeagent.plugin_parts import GPU, babbling, node, offered, running

IDLE = Status()


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Setting:
    """An observer of a kubelet in two folders, with a clock that stands still."""

    def __init__(
        self, folder: FilePath, root: FilePath, *, offering: Offering | None = None
    ) -> None:
        self.clock = _Clock()
        self.dra = ""
        self.pods = NodePods(lambda: None)
        self.observer = Observer(
            folder,
            PodResources(root),
            self.pods,
            choices=Choices(offering=offering or Offering()),
            dra=lambda: self.dra,
            clock=self.clock,
        )

    def __call__(
        self,
        own_node: OwnNode | None = None,
        *,
        reading: Reading | None = None,
        plugin: Callable[[], Status] = lambda: IDLE,
    ) -> Observed:
        reading = reading or Reading(inventory=node(2), error="")
        return self.observer.observe(own_node or _node(), reading, plugin)


@pytest.fixture
def observe(kubelet: FakeKubelet) -> _Setting:
    return _Setting(kubelet.folder, kubelet.root)


def _node(
    path: str | None = None,
    *,
    capacity: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> OwnNode:
    annotations = {PATH: path} if path else None
    return OwnNode(
        metadata=NodeMeta(name="n", uid="u", annotations=annotations, labels=labels),
        status=NodeStatus(capacity=dict(capacity or {}), allocatable=dict(capacity or {})),
    )


def _pod(uid: str, *, assigned: str | None = None, phase: str = "Running") -> Pod:
    annotations = {ASSIGNED: assigned} if assigned is not None else None
    meta = ObjectMeta(name=f"pod-{uid}", namespace="ns", uid=uid, annotations=annotations)
    return Pod(metadata=meta, status=PodStatus(phase=phase))


def test_an_empty_node_with_a_kubelet(observe: _Setting) -> None:
    seen = observe().observation
    assert (seen.devices, seen.kubelet, seen.foreign, seen.holders) == (2, True, False, 0)
    assert (seen.capacity, seen.remembered, seen.published) == (None, False, None)
    assert seen.since_annotation == seen.since_plugin == float("inf")


def test_a_foreign_plugin_and_what_it_leaves_behind(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    kubelet.held = [Held(resource=GPU, device="GPU-1", namespace="ns", pod="p", uid="u1")]
    with Foreign(kubelet.folder, ["GPU-0", "GPU-1"]):
        kubelet.until(lambda: len(kubelet.healthy(GPU)) == 2)
        seen = observe(_node(capacity={GPU: "2"}))
        assert seen.observation.foreign
        assert seen.in_use == {"GPU-1": "u1"}
    kubelet.until(lambda: not kubelet.healthy(GPU))
    seen = observe(_node(capacity={GPU: "2"}))
    assert not seen.observation.foreign
    assert (seen.observation.holders, seen.observation.remembered) == (1, True)
    assert seen.observation.capacity == 2
    assert seen.in_use == {"GPU-1": "u1"}


def test_our_own_plugin_is_not_taken_for_a_foreign_one(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        kubelet.until(lambda: len(kubelet.healthy(GPU)) == 2)
        with Foreign(kubelet.folder, [], resource="example.com/nvidia-nic"):
            pass  # its socket stays behind, named as NVIDIA's are
        seen = observe(plugin=plugins.status).observation
        assert not seen.foreign
        assert plugins.status().heard


def test_replicas_are_held_as_the_gpu_that_they_share(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    shared = [
        Held(resource="nvidia.com/gpu.shared", device="GPU-1::3", namespace="ns", pod="p", uid="u")
    ]
    kubelet.held = shared
    kubelet.write_checkpoint()
    assert observe().in_use == {"GPU-1": "u"}


def test_pods_that_share_a_gpu_are_all_counted(kubelet: FakeKubelet, observe: _Setting) -> None:
    kubelet.held = [
        Held(resource=GPU, device=f"GPU-0::{n}", namespace="ns", pod=f"p{n}", uid=f"u{n}")
        for n in range(3)
    ]
    kubelet.write_checkpoint()
    seen = observe()
    assert seen.observation.holders == 3
    assert seen.in_use.keys() == {"GPU-0"}
    assert seen.held == {"GPU-0", *(held.device for held in kubelet.held)}


def test_holders_outlive_a_kubelet_that_starts_and_knows_no_pod_yet(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    kubelet.held = [
        Held(resource=GPU, device=f"GPU-{n}", namespace="ns", pod=f"p{n}", uid=f"u{n}")
        for n in range(2)
    ]
    kubelet.write_checkpoint()
    before = observe()
    assert before.in_use == {"GPU-0": "u0", "GPU-1": "u1"}
    kubelet.held = []  # the checkpoint stays as it is
    kubelet.restart()
    seen = observe()
    assert seen.in_use == before.in_use
    assert (seen.observation.holders, seen.held) == (2, before.held)
    observe.clock.now += LEARNING
    assert observe().in_use == {}


def test_a_holder_that_is_gone_from_the_checkpoint_is_not_kept(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    kubelet.held = [Held(resource=GPU, device="GPU-0", namespace="ns", pod="p", uid="u")]
    kubelet.write_checkpoint()
    assert observe().in_use == {"GPU-0": "u"}
    kubelet.held = []
    kubelet.write_checkpoint()
    kubelet.restart()
    assert observe().in_use == {}


def test_names_that_no_device_can_have_are_told_and_not_passed_on(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    kubelet.held = [
        Held(resource=GPU, device=device, namespace="ns", pod="p", uid="u")
        for device in ("GPU-0", "", "x" * 5000, "two words")
    ]
    kubelet.write_checkpoint()
    seen = observe()
    assert (seen.in_use, seen.trouble) == ({"GPU-0": "u"}, "")
    observe.clock.now += PATIENCE
    assert "kubelet names devices that no GPU can be" in observe().trouble
    kubelet.held = []
    assert observe().trouble == ""


def test_a_kubelet_that_speaks_another_language_is_told(short_folder: FilePath) -> None:
    folder = short_folder / "pod-resources"
    folder.mkdir()
    setting = _Setting(short_folder / "plugins", short_folder)
    with babbling(folder / "kubelet.sock"):
        assert setting().trouble == ""  # kubelet may be restarting
        setting.clock.now += PATIENCE
        seen = setting()
    assert "kubelet does not say who holds devices" in seen.trouble
    assert seen.in_use == {}


def test_what_dra_serves_is_passed_on(observe: _Setting) -> None:
    assert observe().observation.dra == ""
    observe.dra = "slices"
    assert observe().observation.dra == "slices"


def test_replicas_are_what_a_sliced_node_offers(kubelet: FakeKubelet) -> None:
    sliced = Slicing(replicas=4, shown_as=ResourceName(GPU))
    offering = Offering(slicing={ResourceName(GPU): sliced})
    seen = _Setting(kubelet.folder, kubelet.root, offering=offering)()
    assert seen.observation.devices == 8
    assert len(seen.offers[ResourceName(GPU)].devices) == 8


def test_gpus_that_do_not_suit_the_mig_strategy_say_why(kubelet: FakeKubelet) -> None:
    instance = MigInstance(uuid=DeviceId("MIG-1"), profile="1g.5gb")
    gpus = (
        Gpu(uuid=DeviceId("GPU-0"), index=0, mig_enabled=True, mig=(instance,)),
        Gpu(uuid=DeviceId("GPU-1"), index=1),
    )
    reading = Reading(inventory=NodeInventory(source=Source.NVML, gpus=gpus), error="")
    setting = _Setting(kubelet.folder, kubelet.root, offering=Offering(mig=MigStrategy.SINGLE))
    seen = setting(reading=reading).observation
    assert seen.devices == 0
    assert "GPUs 1 are not split" in seen.devices_missing


def test_holders_without_an_answer_come_from_the_checkpoint(short_folder: FilePath) -> None:
    kubelet = FakeKubelet(short_folder / "plugins")
    kubelet.folder.mkdir()
    kubelet.held = [Held(resource=GPU, device="GPU-0", namespace="ns", pod="p", uid="u1")]
    kubelet.write_checkpoint()
    seen = _Setting(kubelet.folder, kubelet.root)()
    assert seen.in_use == {"GPU-0": "u1"}
    assert seen.observation.holders == 1


def test_a_holder_that_the_checkpoint_does_not_know_is_found_by_name(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    kubelet.held = [Held(resource=GPU, device="GPU-0", namespace="ns", pod="pod-u7", uid="-")]
    assert observe().in_use == {}
    assert observe().observation.holders == 1
    observe.pods.on_event(Event(EventKind.ADDED, _pod("u7")))
    assert observe().in_use == {"GPU-0": "u7"}


def test_an_unreadable_checkpoint_is_believed_to_remember_for_a_while(
    kubelet: FakeKubelet, observe: _Setting
) -> None:
    (kubelet.folder / "kubelet_internal_checkpoint").write_text("{")
    assert observe().observation.remembered
    observe.clock.now += REMEMBERED
    assert not observe().observation.remembered
    assert observe(_node(capacity={GPU: "2"})).observation.remembered


def test_a_kubelet_that_restarts_is_still_there_and_one_that_never_was_is_not(
    kubelet: FakeKubelet, observe: _Setting, short_folder: FilePath
) -> None:
    assert observe().observation.kubelet
    (kubelet.folder / "kubelet.sock").unlink()
    assert observe().observation.kubelet
    observe.clock.now += 60
    assert not observe().observation.kubelet
    assert not _Setting(short_folder / "no", short_folder / "no")().observation.kubelet


def test_the_wish_of_the_admin_and_the_published_path(observe: _Setting) -> None:
    asked = _node("plugin", labels={PATH_WISH_LABEL: "annotation"})
    seen = observe(asked).observation
    assert seen.annotation_asked
    assert (seen.published, seen.since_plugin) == (Path.PLUGIN, 0)
    assert not observe(_node(labels={PATH_WISH_LABEL: "plugin"})).observation.annotation_asked
    assert observe(_node("nonsense")).observation.published is None


def test_the_time_since_a_path_was_shown(observe: _Setting) -> None:
    observe(_node("annotation"))
    observe.clock.now += 2
    observe(_node("draining"))
    observe.clock.now += 3
    seen = observe(_node("draining")).observation
    assert (seen.since_annotation, seen.since_plugin) == (5, float("inf"))


def test_after_a_restart_between_two_paths_both_may_have_just_been(observe: _Setting) -> None:
    seen = observe(_node("draining")).observation
    assert (seen.since_annotation, seen.since_plugin) == (0, 0)


def test_live_pods_are_counted_by_their_path() -> None:
    pods = NodePods(lambda: None)
    for pod in (
        _pod("a", assigned='{"v":1,"epoch":1,"containers":{"main":["GPU-0"]}}'),
        _pod("b", assigned='{"v":1,"epoch":1,"containers":{}}'),
        _pod("c"),
        _pod("d", assigned="garbage"),
        _pod("e", phase="Succeeded"),
    ):
        pods.on_event(Event(EventKind.ADDED, pod))
    # What cannot be read might have been assigned devices.
    assert pods.counts() == PodCounts(annotation=2, plugin=2)
    pods.on_event(Event(EventKind.MODIFIED, _pod("d", phase="Failed")))
    pods.on_event(Event(EventKind.DELETED, _pod("c")))
    assert pods.counts() == PodCounts(annotation=1, plugin=1)


def test_gpus_that_cannot_be_read_say_why(observe: _Setting) -> None:
    seen = observe(reading=Reading(inventory=None, error="no driver")).observation
    assert (seen.devices, seen.devices_missing) == (0, "no driver")


def test_a_refusal_of_our_plugin_is_passed_on(observe: _Setting) -> None:
    status = Status(own=OwnPlugin.REFUSED, error="no")
    seen = observe(plugin=lambda: status).observation
    assert (seen.own, seen.own_error) == (OwnPlugin.REFUSED, "no")
