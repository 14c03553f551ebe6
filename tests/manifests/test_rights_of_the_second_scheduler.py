"""The rights that the second scheduler changes: those on the Lease that two programs share."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.secondscheduler import Replica
from localcluster.shipped import Variant
from localcluster.stack import Stack
from localcluster.waiting import WaitedTooLong, until
from tests.manifests.audit import audit_policy, grants, unused, written

pytestmark = pytest.mark.controlplane

#: Of the Lease, and of the bell that a new leader rings. The other rights are those of the base.
_GROUPS = ("coordination.k8s.io", "storage.k8s.io")
#: Half of the dry runs by which a new leader proves the fence must be refused.
_PROBE = "gpudetour-fence-probe"


def test_every_right_on_the_lease_is_used_and_none_is_missing(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None
) -> None:
    del control_plane_parts
    folder = tmp_path_factory.mktemp("rights2")
    roles = shipped.objects("Role", "RoleBinding", variant=Variant.SECOND_SCHEDULER)
    granted = [
        grant
        for grant in grants(roles)
        if grant.role == "gpudetour-extender" and grant.group in _GROUPS
    ]
    assert granted
    policy = folder / "audit.yaml"
    policy.write_text(json.dumps(audit_policy({grant.user for grant in granted})))
    options = ControlPlaneOptions(audit_policy=policy)
    with LocalCluster(folder / "cluster", options=options) as cluster:
        log = cluster.processes.logs / "audit.log"
        stack = Stack(cluster, variant=Variant.SECOND_SCHEDULER)
        stack.install()
        replica = Replica(stack, "gpudetour-extender-0")
        replica.start()
        until(replica.serves, timeout=60, what="a replica that serves")
        # The bell is rung a moment after it begins to serve.
        with suppress(WaitedTooLong):
            until(lambda: not unused(granted, written(log)), timeout=60, what="all rights used")
        replica.stop()
        used = written(log)

    left = unused(granted, used)
    refused = [str(access) for access in used if access.refused and access.name != _PROBE]
    assert not left, "\n".join(left)
    assert not refused, "\n".join(refused)
