"""What counts as a right that is used: the reading of grants and of the audit log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.manifests.audit import Access, accesses, grants, unused

USER = "system:serviceaccount:ours:agent"
GROUP = "rbac.authorization.k8s.io"


def role(rule: dict[str, list[str]], *, namespace: str | None = None) -> list[dict[str, Any]]:
    """A role of one rule, bound to the account."""
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": "worker", **({"namespace": namespace} if namespace else {})}
    subject = {"kind": "ServiceAccount", "name": "agent", "namespace": "ours"}
    reference = {"apiGroup": GROUP, "kind": kind, "name": "worker"}
    return [
        {"kind": kind, "metadata": metadata, "rules": [rule]},
        {
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]


def access(verb: str, resource: str, **fields: str) -> Access:
    blank = {"user": USER, "namespace": "ours", "group": "", "name": "x", **fields}
    return Access(verb=verb, resource=resource, **blank)


PODS = {"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["list", "patch"]}


def test_every_verb_on_every_resource_is_a_right_of_its_own() -> None:
    granted = list(grants(role(PODS)))

    left = unused(granted, [access("list", "pods"), access("patch", "pods/status")])

    assert left == [
        "worker: list pods/status. in all namespaces",
        "worker: patch pods. in all namespaces",
    ]


@pytest.mark.parametrize(
    "other",
    [
        access("list", "pods", user="system:serviceaccount:ours:other"),
        access("list", "pods", namespace="theirs"),
        access("list", "pods", group="apps"),
        access("list", "pods", name="y"),
        access("watch", "pods"),
    ],
)
def test_a_right_is_not_used_by_a_request_that_it_does_not_cover(other: Access) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"], "resourceNames": ["x"]}
    granted = list(grants(role(rule, namespace="ours")))

    assert len(unused(granted, [other])) == 1
    assert unused(granted, [other, access("list", "pods")]) == []


def test_roles_of_kubernetes_itself_are_not_ours_to_narrow() -> None:
    _, binding = role(PODS)

    assert list(grants([binding])) == []


def test_wildcards_count_as_unused() -> None:
    everything = {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}

    assert unused(grants(role(everything)), [access("list", "pods")])


def line(decision: str, code: int, **about: str) -> str:
    return json.dumps(
        {
            "user": {"username": USER},
            "verb": "create",
            "objectRef": {"resource": "pods", "namespace": "ours", "name": "x", **about},
            "responseStatus": {"code": code, "message": "told"},
            "annotations": {"authorization.k8s.io/decision": decision},
        }
    )


def test_the_log_tells_who_refused() -> None:
    version = json.dumps({"user": {"username": USER}, "verb": "get", "annotations": {}})
    lines = [
        line("forbid", 403, subresource="binding"),
        line("allow", 403),
        line("allow", 404, apiGroup="apps"),
        version,
    ]

    assert list(accesses(lines)) == [
        access("create", "pods/binding", refused="RBAC"),
        access("create", "pods", refused="told"),
        access("create", "pods", group="apps"),
    ]
