"""A Binding that passed the fence in one epoch and is stored in the next."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE
from localcluster.api import Object
from localcluster.simulated import NodeTemplate, bare_node
from tests.builders import node
from tests.cluster.pods import bound, gpu_pod
from tests.ha.holdup import Holdup
from tests.ha.measures import Measures
from tests.ha.site import Site

pytestmark = pytest.mark.controlplane

#: A node with one GPU that only pods of the test tolerate, and their namespace.
APART = "apart"
PODS = f"/api/v1/namespaces/{APART}/pods"
#: Binds of the new leader, in which it could have given away the GPU that it believes free.
MANY = 20


@pytest.fixture
def apart(site: Site) -> Site:
    api = site.cluster.api
    template = NodeTemplate(
        labels={GPU_LABEL: GPU_LABEL_VALUE, "only": APART},
        annotations=node(APART).with_gpus(1).annotation_path().annotations,
    )
    # Tainted from its first moment, or a pod of the load is bound there.
    spec = {"taints": [{"key": "only", "value": APART, "effect": "NoSchedule"}]}
    api.create("/api/v1/nodes", bare_node(APART, template) | {"spec": spec})
    # Admission has added the taint of new nodes.
    api.patch(f"/api/v1/nodes/{APART}", {"spec": spec})
    api.create("/api/v1/namespaces", {"metadata": {"name": APART}})
    site.cluster.wait_for(f"/api/v1/namespaces/{APART}/serviceaccounts/default", bool)
    return site


def asking(name: str) -> Object:
    pod: dict[str, Any] = gpu_pod(name)
    pod["spec"] |= {
        "nodeSelector": {"only": APART},
        "tolerations": [{"key": "only", "operator": "Exists"}],
    }
    return pod


def test_its_gpus_are_given_to_nobody_else(apart: Site, measures: Measures, tmp_path: Path) -> None:
    site, api = apart, apart.cluster.api
    leader, epoch = site.leader(), site.epoch()
    with Holdup(site.cluster, tmp_path / "holdup", node=APART) as holdup:
        holdup.in_force()
        api.create(PODS, asking("early"))
        holdup.wait()
        frozen = time.monotonic()
        leader.freeze()
        came = site.auditor.next_bind(epoch=epoch, since=frozen, timeout=90)
        measures.note("SIGSTOP with a Binding past the fence", came - frozen)
        api.create(PODS, asking("late"))
        site.bind_some(MANY)
        assert not bound(api.get(f"{PODS}/late"))
        # Or the API server has lost its patience with the webhook by now.
        holdup.let_go()
        # By that Binding, or by one of the new leader that gives it the same GPU.
        site.cluster.wait_for(f"{PODS}/early", bound, timeout=40)
    leader.thaw()
    site.bind_some(MANY)
    assert not bound(api.get(f"{PODS}/late"))

    api.delete(f"{PODS}/early", grace_seconds=0)  # no kubelet is there to end it

    site.cluster.wait_for(f"{PODS}/late", bound, timeout=60)
