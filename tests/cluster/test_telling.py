"""What a user reads of a pod that fits nowhere, on a cluster of a thousand nodes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from extender.placement.reasons import Reason
from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE
from gpus.model import Health
from localcluster.simulated import NodeTemplate, bare_node
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.builders import NodeBuilder, node
from tests.cluster.pods import Object, asking, refused
from tests.cluster.watching import binds_of, wait_for_nodes

pytestmark = pytest.mark.controlplane

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
#: The most that an Event's note may have (k8s.io/kubernetes pkg/apis/core/validation).
NOTE = 1024
GIB = 1 << 30

Describe = Callable[[NodeBuilder], NodeBuilder]


def fitting(node: NodeBuilder) -> NodeBuilder:
    """Two cards of what the pod asks for, on one NUMA node."""
    return node.with_gpus(2).cards(numa_node=0, memory_bytes=80 * GIB)


def used_as_kubelet_tells(node: NodeBuilder) -> NodeBuilder:
    holders = {f"GPU-{node.name}-{index}": "uid-of-a-pod-before-us" for index in range(2)}
    return fitting(node).in_use(holders).annotation_path()


#: Nodes by why they cannot take the pod, how many, and how each looks.
STATES: Mapping[str, tuple[Reason, int, Describe]] = {
    "used": (Reason.IN_USE, 600, used_as_kubelet_tells),
    "full": (Reason.IN_USE, 100, lambda n: fitting(n).annotation_path()),
    "half": (Reason.NOT_ENOUGH, 20, lambda n: fitting(n).annotation_path()),
    "unclear": (Reason.HOLDER_UNKNOWN, 5, lambda n: fitting(n).inventory().plugin_path()),
    "product": (
        Reason.OTHER_PRODUCT,
        215,
        lambda n: n.with_gpus(2, "NVIDIA A100").annotation_path(),
    ),
    "small": (
        Reason.OTHER_KIND,
        10,
        lambda n: fitting(n).cards(memory_bytes=16 * GIB).annotation_path(),
    ),
    "single": (
        Reason.TOO_FEW,
        10,
        lambda n: n.with_gpus(1).cards(memory_bytes=80 * GIB).annotation_path(),
    ),
    "apart": (
        Reason.NEVER_CONNECTED,
        10,
        lambda n: n.with_gpus(2).cards(memory_bytes=80 * GIB).annotation_path(),
    ),
    "faulty": (
        Reason.UNHEALTHY,
        10,
        lambda n: fitting(n).health(Health.FAULTY, 0, 1).annotation_path(),
    ),
    "none": (Reason.NO_GPU, 5, lambda n: n.annotation_path()),
    "silent": (Reason.NO_INVENTORY, 5, lambda n: n.path("annotation")),
    "changing": (Reason.PATH_CHANGING, 5, lambda n: fitting(n).inventory().path("settling")),
}
#: Nodes without our label are not for GPU pods at all; kube-scheduler says so by itself.
ORDINARY = 5
EXPECTED = Counter(
    {reason.text: 0 for reason, _, _ in STATES.values()}
    | {"node(s) didn't match Pod's node affinity/selector": ORDINARY}
)
for _reason, _count, _describe in STATES.values():
    EXPECTED[_reason.text] += _count


def test_there_are_twelve_texts_and_all_of_them_fit_into_one_event() -> None:
    texts = {reason.text for reason in Reason}
    told = ", ".join(f"4999 {text}" for text in sorted(texts))
    message = f"0/5000 nodes are available: {told}. {preemption(5000)}"

    assert len(texts) == 12
    assert len(message) <= NOTE


@pytest.fixture(scope="module")
def thousand(quiet_stack: Stack) -> Iterator[Stack]:
    """A thousand nodes in all states, and the pods that hold some of their GPUs."""
    api = quiet_stack.cluster.api
    names = {
        state: [f"{state}-{i}" for i in range(count)] for state, (_, count, _) in STATES.items()
    }
    described = [
        (STATES[state][2](node(name)), state) for state, group in names.items() for name in group
    ]
    objects = [as_created(builder, state) for builder, state in described]
    objects += [bare_node(f"ordinary-{i}", NodeTemplate()) for i in range(ORDINARY)]
    with ThreadPoolExecutor(8) as pool, binds_of(quiet_stack.cluster, "default") as binds:
        list(pool.map(lambda item: api.create(NODES, item), objects))
        holders = [
            *(holder(name, gpus=2) for name in names["full"]),
            *(holder(name, gpus=1) for name in [*names["half"], *names["unclear"]]),
        ]
        for pod in pool.map(lambda pod: api.create(PODS, pod), holders):
            binds.wait(pod["metadata"]["name"], timeout=60)
        # Kubelet's pods hold GPUs of which an agent that must do without kubelet cannot tell.
        for name in names["unclear"]:
            changed = fitting(node(name)).annotation_path()
            api.patch(f"{NODES}/{name}", {"metadata": {"annotations": dict(changed.annotations)}})
        seen = api.create(f"{PODS}?dryRun=All", wish())
        until(
            lambda: (
                texts(filtered(quiet_stack, seen, names["unclear"])) == {Reason.HOLDER_UNKNOWN.text}
            ),
            timeout=60,
            what="the unclear nodes for the extender",
        )
        yield quiet_stack
        api.delete(f"{PODS}?labelSelector=holder", grace_seconds=0)
        api.delete(NODES)
        wait_for_nodes(quiet_stack, 0)


def as_created(node: NodeBuilder, state: str) -> Object:
    return bare_node(
        node.name,
        NodeTemplate(
            capacity={"cpu": "64", "memory": "512Gi", "pods": "110", **node.allocatable},
            labels={GPU_LABEL: GPU_LABEL_VALUE, "state": state},
            annotations=node.annotations,
        ),
    )


def holder(name: str, *, gpus: int) -> Object:
    pod = asking(f"on-{name}", {"nvidia.com/gpu": gpus})
    pod["metadata"]["labels"] = {"holder": ""}
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": name}
    return pod


def wish() -> Object:
    """A pod that no node of the thousand can take."""
    return asking(
        "wish",
        {"nvidia.com/gpu": 2},
        product="*H100*",
        min_memory="40Gi",
        topology="numa",
    )


@pytest.fixture
def waiting_pod(thousand: Stack) -> Iterator[str]:
    api = thousand.cluster.api
    api.create(PODS, wish())
    yield "wish"
    api.delete(f"{PODS}/wish", grace_seconds=0)


def preemption(nodes: int) -> str:
    """What kube-scheduler adds, for the nodes where evicting others would not help."""
    helpless = f"{nodes} Preemption is not helpful for scheduling"
    return f"preemption: 0/{nodes} nodes are available: {helpless}."


def counted(message: str) -> Counter[str]:
    """Return how many nodes a message tells each reason of."""
    told = re.fullmatch(
        r"0/1000 nodes are available: (.+?)\. (?:no new claims[^,]*, )?preemption: .*", message
    )
    assert told is not None, message
    counts = (re.fullmatch(r"([0-9]+) (.+)", part) for part in told[1].split(", "))
    # One reason has a comma.
    return Counter({found[2]: int(found[1]) for found in counts if found is not None})


def test_the_event_counts_every_node_under_its_reason(thousand: Stack, waiting_pod: str) -> None:
    pod = thousand.cluster.wait_for(f"{PODS}/{waiting_pod}", lambda seen: bool(refused(seen)))

    event = until(lambda: event_of(thousand, pod), timeout=20, what="the Event")

    assert counted(refused(pod)) == EXPECTED
    # Not cut: it says all that the condition says.
    assert event["message"] == refused(pod)
    assert len(event["message"]) <= NOTE


def event_of(stack: Stack, pod: Object) -> Object | None:
    selector = f"involvedObject.uid={pod['metadata']['uid']},reason=FailedScheduling"
    events = stack.cluster.api.get("/api/v1/namespaces/default/events", fieldSelector=selector)
    return next(iter(events["items"]), None)


def test_every_node_that_is_rejected_has_one_reason_and_permanent_ones_are_unresolvable(
    thousand: Stack, waiting_pod: str
) -> None:
    names = [f"{state}-{i}" for state, (_, count, _) in STATES.items() for i in range(count)]

    answer = filtered(thousand, thousand.cluster.api.get(f"{PODS}/{waiting_pod}"), names)

    busy = answer.get("FailedNodes", {})
    unresolvable = answer.get("FailedAndUnresolvableNodes", {})
    assert answer["NodeNames"] == []
    assert busy.keys().isdisjoint(unresolvable)
    told = busy | unresolvable
    assert {name: told.get(name) for name in names} == {
        name: STATES[name.split("-")[0]][0].text for name in names
    }
    permanent = {name for name in names if STATES[name.split("-")[0]][0].permanent}
    assert permanent
    assert permanent <= unresolvable.keys()


def texts(answer: Any) -> set[str]:
    """What filter says of the nodes that it rejects."""
    kinds = ("FailedNodes", "FailedAndUnresolvableNodes")
    return {text for kind in kinds for text in (answer.get(kind) or {}).values()}


def filtered(stack: Stack, pod: Object, names: list[str]) -> Any:
    """Return what filter answers, asked as kube-scheduler asks."""
    args = {"Pod": pod, "NodeNames": names}
    client = stack.certificates / "scheduler-client"
    with urllib3.PoolManager(
        ca_certs=str(client / "ca.crt"),
        cert_file=str(client / "tls.crt"),
        key_file=str(client / "tls.key"),
    ) as pool:
        return json.loads(pool.request("POST", f"{stack.extender_url}/filter", json=args).data)
