"""Which of several nodes is best: the least capable that will do, then the one that is used most.

| broken up last to first | why                                                    |
|-------------------------|--------------------------------------------------------|
| more capable GPUs       | who needs them says so, and should find them           |
| vacant nodes            | a pod for a whole node should find one                 |
| whole NVLink islands    | a pod for linked GPUs should find them                 |
| nodes with more left    | filling up keeps others vacant                         |
"""

from __future__ import annotations

from extender.placement.shortlist import Choice, Standing
from extender.placement.strategies import strategy
from gpus.model import Link, NodeName
from gpus.wishes import Policy
from tests.builders import NodeBuilder, PodBuilder, gpu_id, node, pod
from tests.extender.ledgers import ask, ledger

GIB = 1 << 30
ONE = pod("p").wants(gpus=1)


def order(
    asked: PodBuilder,
    *nodes: NodeBuilder,
    used: dict[str, list[int]] | None = None,
    policy: Policy = Policy.BINPACK,
) -> list[NodeName]:
    """Return the nodes that fit, best first."""
    holders = [
        pod(f"{name}-{index}").wants(gpus=1).on(name).assigned({"main": [gpu_id(name, index)]})
        for name, indexes in (used or {}).items()
        for index in indexes
    ]
    known = ledger(nodes, holders)
    standing = Standing(ask(asked), Choice(rank=strategy(policy), limit=0))
    standing.follow(known.nodes)
    return standing.decide(known.nodes.keys(), own={}, turn=0).nodes


def cards(name: str, count: int, *, memory: int) -> NodeBuilder:
    return node(name).with_gpus(count).cards(memory_bytes=memory * GIB)


def in_islands(builder: NodeBuilder, size: int) -> NodeBuilder:
    for index in range(len(builder.gpus)):
        first = index - index % size
        links = tuple(
            Link(peer=gpu_id(builder.name, peer), nvlinks=4)
            for peer in range(first, first + size)
            if peer != index
        )
        builder = builder.cards(index, links=links)
    return builder


def test_a_pod_without_special_wishes_leaves_the_better_gpus_to_others() -> None:
    large = cards("large", 8, memory=80).annotation_path()
    small = cards("small", 8, memory=24).annotation_path()
    kubelet = cards("kubelet", 8, memory=40).inventory().plugin_path()
    nodes = (large, kubelet, small)

    for policy in Policy:
        assert order(ONE, *nodes, policy=policy) == ["small", "kubelet", "large"]
    assert order(ONE, *nodes, used={"large": [0]}) == ["small", "kubelet", "large"]
    assert order(ONE.wishing(min_memory="30Gi"), *nodes) == ["kubelet", "large"]
    assert order(ONE.wishing(min_memory="60Gi"), *nodes) == ["large"]
    full = {"small": list(range(8))}
    assert order(ONE, large, small, used=full) == ["large"]


def test_a_node_with_both_kinds_counts_by_what_the_pod_would_get() -> None:
    both = cards("both", 4, memory=80).cards(0, 1, memory_bytes=24 * GIB).annotation_path()
    middle = cards("middle", 4, memory=40).annotation_path()

    assert order(ONE, middle, both) == ["both", "middle"]
    assert order(ONE, middle, both, used={"both": [0, 1]}) == ["middle", "both"]
    # Where kubelet chooses, it may be the better one.
    plugin = cards("plugin", 4, memory=80).cards(0, 1, memory_bytes=24 * GIB)
    assert order(ONE, middle, plugin.inventory().plugin_path()) == ["middle", "plugin"]


def test_vacant_nodes_are_broken_up_last_and_whole_islands_before_them() -> None:
    islands = [in_islands(cards(name, 8, memory=80), 4) for name in ("a", "b", "c")]
    vacant, whole, started = (builder.annotation_path() for builder in islands)

    # c has two whole free in a started island, b has an island that is whole and nothing else.
    used = {"b": [0, 1, 2, 3], "c": [0, 1]}

    assert order(ONE, vacant, whole, started, used=used) == ["c", "b", "a"]
    assert order(pod("p").wants(gpus=2), vacant, whole, started, used=used) == ["c", "b", "a"]
    assert order(pod("p").wants(gpus=4), vacant, whole, started, used=used) == ["b", "c", "a"]
    assert order(pod("p").wants(gpus=8), vacant, whole, started, used=used) == ["a"]


def test_a_pods_own_policy_beats_the_setting() -> None:
    a, b = (cards(name, 4, memory=80).annotation_path() for name in ("a", "b"))
    used = {"b": [0, 1]}

    assert order(ONE, a, b, used=used) == ["b", "a"]
    assert order(ONE.wishing(policy="spread"), a, b, used=used) == ["a", "b"]
    assert order(ONE, a, b, used=used, policy=Policy.SPREAD) == ["a", "b"]
    assert order(ONE.wishing(policy="binpack"), a, b, used=used, policy=Policy.SPREAD) == [
        "b",
        "a",
    ]
