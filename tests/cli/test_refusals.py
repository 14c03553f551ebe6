"""What people are told when the API server does not answer as they wish."""

from __future__ import annotations

import pytest

from cli.refusals import denied, told
from kube.connection import NoConnection
from kube.errors import ConnectionFailed, Forbidden, KubeError, api_error


def forbidden(message: str) -> Forbidden:
    error = api_error(403, reason="Forbidden", message=message)
    assert isinstance(error, Forbidden)
    return error


CLUSTER = forbidden(
    'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster'
    " scope"
)
NAMESPACED = forbidden(
    'leases.coordination.k8s.io is forbidden: User "system:serviceaccount:a:b" cannot list resource'
    ' "leases" in API group "coordination.k8s.io" in the namespace "gpudetour-system"'
)
SUBRESOURCE = forbidden(
    'pods "x" is forbidden: User "jane" cannot get resource "pods/proxy" in API group "" in the'
    ' namespace "gpudetour-system"'
)


def test_a_missing_right_comes_with_the_commands_that_grant_it() -> None:
    assert told(CLUSTER).splitlines() == [
        "error: you may not list nodes (user jane)",
        "Ask an administrator of the cluster for that right, which these commands give:",
        "  kubectl create clusterrole list-nodes --verb=get,list,watch --resource=nodes",
        "  kubectl create clusterrolebinding list-nodes --clusterrole=list-nodes --user='jane'",
    ]


def test_in_a_namespace_a_role_is_enough() -> None:
    assert told(NAMESPACED).splitlines()[2:] == [
        "  kubectl create role list-leases --verb=get,list,watch"
        " --resource=leases.coordination.k8s.io -n gpudetour-system",
        "  kubectl create rolebinding list-leases --role=list-leases"
        " --user='system:serviceaccount:a:b' -n gpudetour-system",
    ]
    assert "--resource=pods/proxy" in told(SUBRESOURCE)
    assert denied(SUBRESOURCE) == (
        "you may not get pods/proxy in namespace gpudetour-system (user jane)"
    )


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (forbidden("an admission plugin says no"), "not allowed: an admission plugin says no"),
        (NoConnection("no usable kubeconfig: x"), "--kubeconfig or KUBECONFIG"),
        (ConnectionFailed("GET /api: refused"), "--request-timeout"),
        (api_error(401, reason="Unauthorized", message="Unauthorized"), "Log in again"),
        (api_error(500, reason="InternalError", message="etcd"), "the API server refused: etcd"),
        (KubeError("anything"), "error: anything"),
    ],
)
def test_every_failure_says_what_to_do_or_what_was_said(error: KubeError, hint: str) -> None:
    text = told(error)

    assert text.startswith("error: ")
    assert hint in text
