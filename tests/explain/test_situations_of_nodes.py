"""Why a pod waits where all parts work: the right cause first, on a real control plane."""

from __future__ import annotations

import pytest

from explain.causes import Cause
from explain.findings import State
from gpus.annotations import PATH_REASON
from gpus.model import Health
from tests.builders import NodeBuilder, node
from tests.cluster.pods import asking, gpu_pod, plain_pod
from tests.explain.site import Site

pytestmark = pytest.mark.controlplane

GIB = 1 << 30
GPU = "nvidia.com/gpu"


def cards(name: str, count: int = 2, product: str = "NVIDIA H100") -> NodeBuilder:
    return node(name).with_gpus(count, product).cards(memory_bytes=80 * GIB)


def test_no_node_has_gpus(site: Site) -> None:
    site.node(node("plain"), with_gpus=False)
    site.pod(gpu_pod("a"))

    told = site.first("a", Cause.NO_GPU_NODES)

    assert told.state is State.WAITS
    assert told.findings[0].count == 1
    assert not told.unreadable


def test_all_gpus_are_in_use_and_the_pods_that_hold_them_are_named(site: Site) -> None:
    site.node(cards("full").annotation_path())
    site.node(cards("other", product="NVIDIA A100").annotation_path())
    site.holder(asking("holder", {GPU: 2}, product="*H100*"))
    site.pod(asking("a", {GPU: 1}, product="*H100*"))

    told = site.first("a", Cause.IN_USE)

    assert told.findings[0].nodes == ("full",)
    assert told.findings[0].holders == ("default/holder on full",)
    assert any("default/holder" in text for text in told.findings[0].ends)
    assert [found.cause for found in told.findings] == [Cause.IN_USE, Cause.PRODUCT]
    assert any("gpudetour.io/product" in text for text in told.findings[1].ends)


def test_the_product_is_wrong(site: Site) -> None:
    site.node(cards("a100", product="NVIDIA A100").annotation_path())
    site.pod(asking("a", {GPU: 1}, product="*H100*"))

    told = site.first("a", Cause.PRODUCT)

    assert "NVIDIA A100" in told.findings[0].saw
    assert told.findings[0].ends == (
        "without the annotation gpudetour.io/product the pod would fit on 1 node now",
    )


def test_the_gpus_have_too_little_memory(site: Site) -> None:
    site.node(cards("small").cards(memory_bytes=16 * GIB).annotation_path())
    site.pod(asking("a", {GPU: 1}, min_memory="40Gi"))

    told = site.first("a", Cause.MEMORY)

    assert "16384 MiB" in told.findings[0].saw


def test_the_gpus_are_unhealthy(site: Site) -> None:
    site.node(cards("sick").health(Health.FAULTY, 0, 1).annotation_path(), lease=True)
    site.pod(gpu_pod("a"))

    told = site.first("a", Cause.UNHEALTHY)

    assert "GPU 0 of sick is faulty" in told.findings[0].saw


def test_the_node_is_settling(site: Site) -> None:
    why = "kubelet remembers a device plugin that is gone, for 5 minutes after it stopped"
    settling = cards("settling").inventory().path("settling").annotated(PATH_REASON, why)
    site.node(settling, lease=True)
    site.pod(gpu_pod("a"))

    assert site.first("a", Cause.SETTLING).findings[0].saw == why


def test_a_zero_is_left_in_node_status(site: Site) -> None:
    site.node(node("stale").plugin_path(gpu=0).annotated("unrelated", ""))
    site.pod(gpu_pod("a"))

    told = site.first("a", Cause.STALE_ZERO)

    assert told.findings[0].nodes == ("stale",)


def test_the_agent_is_silent(site: Site) -> None:
    # What kubelet makes of a plugin whose agent is gone: all devices are unhealthy.
    site.node(cards("silent").inventory().plugin_path(healthy=0), lease=False)
    site.pod(gpu_pod("a"))

    told = site.first("a", Cause.AGENT_SILENT)

    assert "2026-01-01" in told.findings[0].saw


def test_a_taint_is_not_tolerated(site: Site) -> None:
    taint = {"key": "team", "value": "vision", "effect": "NoSchedule"}
    site.node(cards("tainted").annotation_path(), taints=[taint])
    site.node(node("plain"), with_gpus=False)
    site.pod(gpu_pod("a"))

    told = site.first("a", Cause.TAINT)

    assert told.findings[0].saw == "the pod does not tolerate team=vision:NoSchedule"
    assert "kubectl taint nodes tainted team-" in told.findings[0].ends
    assert [found.cause for found in told.findings] == [Cause.TAINT, Cause.NO_GPU]


def test_the_node_selector_leaves_all_nodes_out(site: Site) -> None:
    site.node(cards("here").annotation_path(), labels={"zone": "a"})
    pod = gpu_pod("a")
    pod["spec"]["nodeSelector"] = {"zone": "b"}
    site.pod(pod)

    told = site.first("a", Cause.SELECTOR)

    assert told.findings[0].saw == "its nodeSelector asks for zone=b"


def test_cpu_is_short(site: Site) -> None:
    site.node(cards("busy").annotation_path())
    for name, pod in (("holder", plain_pod("holder")), ("a", gpu_pod("a"))):
        requests = pod["spec"]["containers"][0].setdefault("resources", {})
        requests["requests"] = {"cpu": "40"}
        if name == "holder":
            site.holder(pod)
        else:
            site.pod(pod)

    told = site.first("a", Cause.RESOURCES)

    assert "Insufficient cpu" in told.findings[0].saw
    assert told.findings[0].nodes == ("busy",)


def test_a_pod_that_got_its_gpus_is_told_why(site: Site) -> None:
    site.node(cards("good").annotation_path())
    site.holder(asking("a", {GPU: 1}, min_memory="40Gi"))

    told = site.ask("a")

    assert told.state is State.PLACED
    assert told.findings == ()
    assert told.placement is not None
    assert (told.placement.node, told.placement.path) == ("good", "annotation")
    (device,) = told.placement.devices
    assert (device.product, device.containers) == ("NVIDIA H100", ("main",))
    assert told.placement.wishes == {"gpudetour.io/min-memory": True}
    assert any("nvidia-smi" in command for command in told.placement.look)
