"""Rights that are granted, and rights that were used as the API server's audit log tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]

_ACCOUNT = "system:serviceaccount:{}:{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One verb on one kind of object; `namespace` is empty where it holds in all of them."""

    user: str
    role: str
    namespace: str
    group: str
    resource: str
    verb: str
    names: frozenset[str] = frozenset()

    def covers(self, access: Access) -> bool:
        """Tell whether the grant lets a request pass (RBAC's RuleAllows)."""
        return (
            (self.user, self.group, self.resource, self.verb)
            == (access.user, access.group, access.resource, access.verb)
            and self.namespace in ("", access.namespace)
            and (not self.names or access.name in self.names)
        )

    def __str__(self) -> str:
        where = self.namespace or "all namespaces"
        named = f" {sorted(self.names)}" if self.names else ""
        return f"{self.role}: {self.verb} {self.resource}.{self.group}{named} in {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One request about an object; `refused` says who refused it: `RBAC`, or a policy's words."""

    user: str
    namespace: str
    group: str
    resource: str
    name: str
    verb: str
    refused: str = ""

    def __str__(self) -> str:
        what = f"{self.verb} {self.resource}.{self.group} {self.namespace}/{self.name}"
        return f"{self.user}: {what}: {self.refused}"


def audit_policy(users: Iterable[str]) -> Object:
    """The audit policy that logs what these users ask for, and nothing else."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        # A refusal of admission is told in the response's status, which this level has.
        "rules": [{"level": "Metadata", "users": sorted(users)}, {"level": "None"}],
    }


def grants(objects: Iterable[Object]) -> Iterator[Grant]:
    """All that the bindings among the objects grant to service accounts by roles among them."""
    items = list(objects)
    roles = {_key(item, item["kind"], item["metadata"]["name"]): item for item in items}
    for item in items:
        if item["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        reference = item["roleRef"]
        role = roles.get(_key(item, reference["kind"], reference["name"]))
        for subject in item["subjects"] if role is not None else ():
            user = _ACCOUNT.format(subject["namespace"], subject["name"])
            for rule in role["rules"] if role is not None else ():
                yield from _of_rule(rule, user, reference["name"], _namespace(item))


def _of_rule(
    rule: Mapping[str, list[str]], user: str, role: str, namespace: str
) -> Iterator[Grant]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield Grant(
                    user=user,
                    role=role,
                    namespace=namespace,
                    group=group,
                    resource=resource,
                    verb=verb,
                    names=frozenset(rule.get("resourceNames", ())),
                )


def _key(item: Object, kind: str, name: str) -> tuple[str, str, str]:
    """What a role is found by: Roles by namespace too."""
    return kind, name, "" if kind == "ClusterRole" else _namespace(item)


def _namespace(item: Object) -> str:
    return str(item["metadata"].get("namespace", ""))


def written(log: Path) -> list[Access]:
    """What a log tells that goes on: its last line may be half written."""
    return list(accesses(log.read_text().rpartition("\n")[0].splitlines()))


def accesses(lines: Iterable[str]) -> Iterator[Access]:
    """The requests about objects in an audit log (audit.k8s.io/v1 Event, one JSON a line)."""
    for line in lines:
        event = json.loads(line)
        if (about := event.get("objectRef")) is None:
            continue
        subresource = about.get("subresource")
        yield Access(
            user=event["user"]["username"],
            namespace=about.get("namespace", ""),
            group=about.get("apiGroup", ""),
            resource="/".join(filter(None, (about["resource"], subresource))),
            name=about.get("name", ""),
            verb=event["verb"],
            refused=_refused(event),
        )


def _refused(event: Object) -> str:
    if event["annotations"].get("authorization.k8s.io/decision") != "allow":
        return "RBAC"
    status = event.get("responseStatus", {})
    return str(status.get("message") or "refused") if status.get("code") == 403 else ""


def unused(granted: Iterable[Grant], used: Iterable[Access]) -> list[str]:
    """The grants that no request needed, in words."""
    seen = list(set(used))
    return sorted({str(g) for g in granted if not any(g.covers(access) for access in seen)})
