"""Whatever is missing, old, garbage or contradictory: an answer, never a crash, always the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from explain.causes import Cause
from explain.facts import Certificate, Deployment, Event, Facts, Fence, Quota, QuotaStatus
from explain.findings import State
from explain.judge import explain
from explain.report import as_json, as_text
from gpus import annotations as contract
from kube.objects import (
    Lease,
    LeaseSpec,
    Node,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    ObjectReference,
    Taint,
)
from tests.builders import gpu_id, node, pod
from tests.explain.making import FRESH, NOW, OLD, facts

NAMES = st.sampled_from(
    ["n0", "n1", "n2", "gpudetour-extender", "gpudetour-webhook", "", "ü\x1b[2J"]
)
WORDS = st.one_of(NAMES, st.text(max_size=20), st.sampled_from([FRESH, OLD, "{", "true", "0"]))
GARBAGE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)
AMOUNTS = st.one_of(st.integers(0, 9).map(str), WORDS, st.integers(), st.floats())
META = st.builds(ObjectMeta, name=NAMES, namespace=NAMES, uid=NAMES)

SOUND_NODES = [
    node("n0").with_gpus(2).annotation_path().build(),
    node("n1").with_gpus(2).inventory().plugin_path().build(),
    node("n2").with_mig(["1g.5gb"]).annotation_path().build(),
]
NODES = st.one_of(
    st.sampled_from(SOUND_NODES),
    st.builds(
        Node,
        metadata=st.builds(
            ObjectMeta,
            name=NAMES,
            labels=st.none() | st.dictionaries(WORDS, WORDS, max_size=2),
            annotations=st.dictionaries(
                st.sampled_from([contract.INVENTORY, contract.PATH, contract.IN_USE]),
                st.one_of(WORDS, st.sampled_from(["plugin", "annotation", "settling"])),
            ),
        ),
        spec=st.builds(
            NodeSpec,
            unschedulable=st.booleans(),
            taints=st.none() | st.lists(st.builds(Taint, key=WORDS, effect=WORDS), max_size=2),
        ),
        status=st.builds(
            NodeStatus,
            capacity=st.none() | st.dictionaries(WORDS | st.just("nvidia.com/gpu"), AMOUNTS),
            allocatable=st.none() | st.dictionaries(WORDS | st.just("nvidia.com/gpu"), AMOUNTS),
        ),
    ),
)
ASKING = pod("p").wants(gpus=1)
PODS = st.sampled_from(
    [
        ASKING,
        ASKING.devices_from(None),
        ASKING.wishing(product="*", min_memory="40Gi", topology="nvlink"),
        ASKING.wishing(uuid="nonsense"),
        ASKING.on("n0").assigned({"main": [gpu_id("n0", 0)]}),
        ASKING.on("n1").annotated(contract.ASSIGNED, "{"),
        ASKING.on("gone").deleting(),
        ASKING.phase("Failed"),
        ASKING.deleting(),
        pod("p"),
        pod("p").wants(memory="8Gi"),
        pod("p").wants(mig_1g_5gb=1),
    ]
)
HOLDERS = st.sampled_from(
    [
        pod("h").wants(gpus=1).on("n0").assigned({"main": [gpu_id("n0", 0)]}).build(),
        pod("h2").wants(gpus=2).on("n0").assigned({"main": [gpu_id("n0", 0)]}).build(),
        pod("h3").wants(gpus=1).on("n1").build(),
        pod("h4").wants(gpus=1).on("unknown").deleting().build(),
    ]
)
SAID = st.one_of(
    WORDS,
    st.sampled_from(
        [
            "0/3 nodes are available: 2 Insufficient cpu, 1 all GPUs in use. preemption: x",
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            'Post "https://x/filter": x509: expired',
            "gpudetour's extender does not serve: nodes are not listed yet",
        ]
    ),
)
EVENTS = st.builds(
    Event,
    involved_object=st.builds(ObjectReference, kind=WORDS, name=NAMES | st.just("p")),
    reason=st.sampled_from(["FailedScheduling", "FailedCreate", "Failed", "x"]),
    type=st.sampled_from(["Warning", "Normal", ""]),
    message=SAID | st.just("exceeded quota: team"),
    last_timestamp=st.none() | WORDS,
)
LEASES = st.builds(
    Lease,
    metadata=META,
    spec=st.builds(
        LeaseSpec,
        holder_identity=st.none() | WORDS,
        lease_duration_seconds=st.none() | st.integers(-5, 100),
        renew_time=st.none() | WORDS,
    ),
)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    known = facts(draw(PODS), said=draw(SAID), spec=draw(st.dictionaries(SPEC, GARBAGE)))
    change: dict[str, Any] = {
        "nodes": tuple(draw(st.lists(NODES, max_size=4, unique_by=lambda n: n.metadata.name))),
        "gpu_pods": tuple(draw(st.lists(HOLDERS, max_size=4))),
        "events": tuple(draw(st.lists(EVENTS, max_size=3))),
        "refusals": tuple(draw(st.lists(EVENTS, max_size=3))),
        "leases": draw(st.dictionaries(NAMES, LEASES, max_size=3)),
        "deployments": draw(st.dictionaries(NAMES, st.builds(Deployment, metadata=META))),
        "webhook_configured": draw(st.booleans()),
        "fence": draw(st.builds(Fence, policies=st.frozensets(NAMES), account=st.none() | NAMES)),
        "runtime_classes": draw(st.frozensets(NAMES)),
        "quotas": (
            Quota(status=QuotaStatus(hard=draw(st.dictionaries(WORDS, AMOUNTS)), used=None)),
        ),
        "certificates": (Certificate(secret="s", not_after=NOW, trusted=draw(st.booleans())),),
    }
    for name in draw(st.sets(st.sampled_from(sorted(change)))):
        change[name] = None
    if draw(st.booleans()):
        change["pod"] = None
    return replace(known, unreadable={"x": draw(WORDS)}, **change)


SPEC = st.sampled_from(
    ["affinity", "tolerations", "nodeSelector", "schedulingGates", "containers", "initContainers"]
)


@given(any_facts())
@settings(max_examples=200, deadline=None)
def test_something_is_always_named_in_a_stable_order(known: Facts) -> None:
    told = explain(known)

    assert told.findings or told.state is State.PLACED
    ranks = [found.cause.rank for found in told.findings]
    if told.state is State.WAITS:
        assert ranks == sorted(ranks)
    if known.nodes is not None:
        backward = replace(known, nodes=tuple(reversed(known.nodes)))
        assert [found.cause for found in explain(backward).findings] == [
            found.cause for found in told.findings
        ]
    text = as_text(told)
    assert all(line.isprintable() for line in text.splitlines())
    assert [cause["id"] for cause in json.loads(as_json(told))["causes"]] == [
        found.cause.id for found in told.findings
    ]


def test_causes_have_names_of_their_own_that_urls_can_carry() -> None:
    ids = [cause.id for cause in Cause]

    assert len(set(ids)) == len(ids)
    assert all(name.replace("-", "").isalpha() and name.islower() for name in ids)
