"""Requests to the API server in the name of anybody. Nothing that is asked here is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import urllib3

from localcluster.cluster import LocalCluster

Object = dict[str, Any]

_KINDS = {
    "POST": "application/json",
    "PUT": "application/json",
    "PATCH": "application/merge-patch+json",
    "DELETE": "application/json",
    "GET": "application/json",
}
#: Server-side apply (KEP-555).
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks: the bearer of a token, or whom the administrator stands for."""

    name: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def impersonated(self) -> bool:
        """Whether it takes the administrator's certificate to ask so."""
        return "Authorization" not in self.headers


def standing_for(user: str, group: str = "") -> Identity:
    """A user of that name, in that group and in `system:authenticated`."""
    more = {"Impersonate-Group": group} if group else {}
    return Identity(name=user, headers={"Impersonate-User": user, **more})


def bearing(name: str, token: str) -> Identity:
    """The bearer of a token, with no other proof of who it is."""
    return Identity(name=name, headers={"Authorization": f"Bearer {token}"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; for trial unless it only reads."""

    method: str
    path: str
    body: object = None
    kind: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API server said; `by` names who refused it, and is empty where nobody did."""

    status: int
    #: The object as it would be stored, or the refusal.
    told: Object
    warnings: str = ""

    @property
    def by(self) -> str:
        """The policy that refused, `RBAC`, or the message where it is something else."""
        if self.status < HTTPStatus.BAD_REQUEST:
            return ""
        message = str(self.told.get("message", ""))
        if found := re.search("ValidatingAdmissionPolicy '([^']+)'", message):
            return found[1]
        return "RBAC" if re.search(r'User "[^"]+" cannot', message) else message


class Door:
    """The API server's door; close it at the end."""

    def __init__(self, cluster: LocalCluster) -> None:
        pki, ca_file = cluster.state / "pki", str(cluster.ca_file)
        self._server = cluster.server
        self._anonymous = urllib3.PoolManager(ca_certs=ca_file, retries=False, timeout=30)
        self._administrator = urllib3.PoolManager(
            ca_certs=ca_file,
            cert_file=str(pki / "admin.crt"),
            key_file=str(pki / "admin.key"),
            retries=False,
            timeout=30,
        )

    def ask(self, who: Identity, request: Request) -> Answer:
        """Ask in somebody's name."""
        query = [request.query] if request.query else []
        if request.method != "GET":
            query.append("dryRun=All")
        pool = self._administrator if who.impersonated else self._anonymous
        answer = pool.request(
            request.method,
            f"{self._server}{quote(request.path)}?{'&'.join(query)}",
            body=None if request.body is None else json.dumps(request.body).encode(),
            headers={**who.headers, "Content-Type": request.kind or _KINDS[request.method]},
        )
        told = json.loads(answer.data)
        return Answer(
            status=answer.status,
            told=told,
            warnings=answer.headers.get("Warning", ""),
        )

    def close(self) -> None:
        """Close the connections."""
        self._anonymous.clear()
        self._administrator.clear()
