"""What to tell a person whose question the API server did not answer. Pure: errors in, text out."""

from __future__ import annotations

import re

from kube.connection import NoConnection
from kube.errors import ApiError, ConnectionFailed, Forbidden, KubeError, Unauthorized

#: The text of Kubernetes' own authorizer (apiserver/pkg/endpoints/handlers/responsewriters).
_DENIED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
    r' in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)


def told(error: KubeError) -> str:
    """Return what went wrong and what to do next, in a few lines."""
    match error:
        case NoConnection():
            return f"error: {error}\nName a kubeconfig with --kubeconfig or KUBECONFIG."
        case Forbidden():
            return _forbidden(error)
        case Unauthorized():
            return (
                f"error: the API server does not know who you are: {error.message}\n"
                "Log in again, or choose another user with --context or --kubeconfig."
            )
        case ConnectionFailed():
            return (
                f"error: no answer from the API server: {error}\n"
                "See whether `kubectl version` has one; another server is chosen with --context or"
                " --kubeconfig, more patience with --request-timeout."
            )
        case ApiError():
            return f"error: the API server refused: {error.message or error.reason}"
    return f"error: {error}"


def denied(error: Forbidden) -> str:
    """Return in one line what the caller may not do."""
    found = _DENIED.search(error.message)
    if found is None:
        return f"not allowed: {error.message}"
    return f"you may not {found['verb']} {_resource(found)}{_place(found)} (user {found['user']})"


def _forbidden(error: Forbidden) -> str:
    found = _DENIED.search(error.message)
    if found is None:
        return f"error: {denied(error)}"
    name, scope = f"{found['verb']}-{found['resource'].replace('/', '-')}", ""
    role, binding = "clusterrole", "clusterrolebinding"
    if found["namespace"]:
        role, binding, scope = "role", "rolebinding", f" -n {found['namespace']}"
    verbs = "get,list,watch" if found["verb"] in ("get", "list", "watch") else found["verb"]
    return (
        f"error: {denied(error)}\n"
        "Ask an administrator of the cluster for that right, which these commands give:\n"
        f"  kubectl create {role} {name} --verb={verbs} --resource={_resource(found)}{scope}\n"
        f"  kubectl create {binding} {name} --{role}={name} --user='{found['user']}'{scope}"
    )


def _resource(found: re.Match[str]) -> str:
    if not found["group"]:
        return found["resource"]
    resource, slash, subresource = found["resource"].partition("/")
    return f"{resource}.{found['group']}{slash}{subresource}"


def _place(found: re.Match[str]) -> str:
    return f" in namespace {found['namespace']}" if found["namespace"] else ""
