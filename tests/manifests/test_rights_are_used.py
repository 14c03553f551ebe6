"""Every right that the manifests grant is needed, and none is missing: the API server's audit log
of an installation's life, compared with the roles.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.stack import Stack
from localcluster.waiting import WaitedTooLong, until
from tests.manifests.audit import Access, Grant, audit_policy, grants, unused, written
from tests.manifests.choices import rights_to_evict
from tests.manifests.daily_life import DailyLife

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(600)]

_ROLES = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
#: Dry runs that are refused where all is as it must be: half of those by which a new leader proves
#: the fence, and the canary's while pods do not reach the webhook.
_PROBES = ("gpudetour-fence-probe", "canary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What may be done, and what was."""

    granted: list[Grant]
    used: list[Access]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None, helm: Path) -> Life:
    """What is shipped, with the right to evict."""
    del control_plane_parts, helm
    folder = tmp_path_factory.mktemp("rights")
    granted = list(grants([*shipped.objects(*_ROLES), *rights_to_evict()]))
    policy = folder / "audit.yaml"
    policy.write_text(json.dumps(audit_policy({grant.user for grant in granted})))
    with LocalCluster(folder / "cluster", options=ControlPlaneOptions(audit_policy=policy)) as one:
        happens = DailyLife(Stack(one), folder)
        happens.begin()
        happens.certificates_are_broken()
        happens.pods_do_not_reach_the_webhook()
        happens.a_pod_comes_and_goes()
        happens.a_bind_broke_off()
        happens.a_pod_is_gone_before_its_bind()
        happens.others_bind()
        happens.another_driver_comes_and_goes()
        happens.the_leader_is_replaced()
        happens.usage_is_recorded()
        happens.an_important_pod_comes()
        happens.all_is_uninstalled()
        log = one.processes.logs / "audit.log"
        # What is answered is logged a moment later.
        with suppress(WaitedTooLong):
            until(lambda: not unused(granted, written(log)), timeout=30, what="all rights used")
        return Life(granted=granted, used=written(log))


def test_every_right_that_is_granted_is_used(life: Life) -> None:
    left = unused(life.granted, life.used)

    assert not left, "\n".join(left)


def test_nothing_is_refused(life: Life) -> None:
    refused = sorted({str(a) for a in life.used if a.refused and a.name not in _PROBES})

    assert not refused, "\n".join(refused)


def test_the_log_tells_of_every_account(life: Life) -> None:
    assert {grant.user for grant in life.granted} == {access.user for access in life.used}
