"""Objects, listings and watch lines as the API server writes them."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.api_server import Answer

PATH = "/api/v1/pods"


def pod(name: str, *, version: int, uid: str | None = None, node: str = "") -> dict[str, Any]:
    meta = {
        "name": name,
        "namespace": "default",
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
    }
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": node}}


def listing(*items: dict[str, Any], version: int, more: str = "") -> Answer:
    meta = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    return Answer(body={"kind": "PodList", "metadata": meta, "items": list(items)})


def line(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


def error(code: int, reason: str = "", **details: Any) -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": reason}
    return line("ERROR", {**status, "details": details})
