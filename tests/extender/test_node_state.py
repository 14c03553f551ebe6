"""What counts as free on a node, and what does not."""

from __future__ import annotations

from gpus.model import GPU_RESOURCE, Health, NodeName, ResourceName
from tests.builders import NodeBuilder, PodBuilder, node, pod
from tests.extender.ledgers import ledger, open_devices, state

MIG = ResourceName("nvidia.com/mig-1g.5gb")


def free(builder: NodeBuilder, *pods: PodBuilder, of: ResourceName = GPU_RESOURCE) -> int:
    return state(builder, *pods).free.get(of, 0)


def test_ended_pods_hold_nothing_and_pods_being_deleted_still_do() -> None:
    plugin = node("n").with_gpus(4).plugin_path()
    holder = pod("a").wants(gpus=1)

    assert free(plugin, holder) == 3
    assert free(plugin, holder.deleting()) == 3
    assert [ended(plugin, holder, phase) for phase in ("Succeeded", "Failed")] == [4, 4]


def ended(builder: NodeBuilder, holder: PodBuilder, phase: str) -> int:
    pods = [holder.on(builder.name).phase(phase)]
    return ledger([builder], pods).nodes[NodeName(builder.name)].free[GPU_RESOURCE]


def test_devices_of_pods_older_than_the_install_count_on_the_plugin_path() -> None:
    plugin = node("n").with_gpus(4).plugin_path()
    known = pod("a").wants(gpus=1)

    assert free(plugin.in_use({"GPU-n-0": "uid-stranger"})) == 3
    assert free(plugin.in_use({"GPU-n-0": "uid-a"}), known) == 3
    assert free(plugin.in_use({"GPU-n-0": "uid-a", "GPU-n-1": "uid-stranger"}), known) == 2


def test_an_unknown_mig_device_counts_under_every_profile() -> None:
    mixed = node("n").plugin_path(gpu=1, mig_1g_5gb=2, mig_2g_10gb=1)

    held = mixed.in_use({"MIG-x": "uid-stranger"})

    assert free(held) == 1
    assert free(held, of=MIG) == 1
    assert free(held, of=ResourceName("nvidia.com/mig-2g.10gb")) == 0


def test_a_device_that_kubelet_gave_away_is_held_on_the_annotation_path_too() -> None:
    annotation = node("n").with_gpus(2).annotation_path().in_use({"GPU-n-1": "uid-stranger"})

    assert open_devices(state(annotation)) == ["GPU-n-0"]


def test_instances_of_a_card_that_was_given_away_whole_are_held() -> None:
    cut = node("n").with_mig(["1g.5gb", "1g.5gb"]).annotation_path()
    whole = pod("a").wants(gpus=1).assigned({"main": ["GPU-n-0"]})

    assert free(cut, of=MIG) == 2
    assert free(cut, whole, of=MIG) == 0


def test_unhealthy_devices_are_not_given_out() -> None:
    sick = node("n").with_gpus(3).health(Health.UNMONITORED, 0).annotation_path()

    assert open_devices(state(sick)) == ["GPU-n-1", "GPU-n-2"]


def test_a_labelled_pod_that_asks_for_nothing_holds_nothing() -> None:
    annotation = node("n").with_gpus(1).annotation_path()

    assert free(annotation, pod("a")) == 1


def test_peak_need_counts_init_containers_once() -> None:
    plugin = node("n").with_gpus(8).plugin_path()
    several = pod("a").sidecar("s", gpus=1).init("i", gpus=4).wants(gpus=2)

    assert free(plugin, several) == 3
