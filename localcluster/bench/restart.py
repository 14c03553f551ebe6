"""How long an extender needs until it serves again, among many bound GPU pods."""

from __future__ import annotations

import json
import time
from datetime import datetime

from localcluster.bench.fleet import PODS
from localcluster.bench.outcome import Rebuild
from localcluster.bench.site import Site
from localcluster.stack import Stack

#: What the extender says when it has the Lease, the fence is proven, and the pods come next.
_LEADS = "leading, listing pods"


class NotTold(Exception):
    """The extender's log lacks the line that the measurement needs."""


def restart_extender(site: Site, stack: Stack) -> Rebuild:
    """Stop the extender of a site and start it again."""
    pods = len(site.cluster.api.get(PODS)["items"])
    stack.stop("extender")
    started = time.time()
    stack.start_extender()
    serves = time.time()
    leads = began_to_list(site.cluster.processes.log("extender").read_text(errors="replace"))
    return Rebuild(
        system=site.system,
        nodes=site.nodes,
        pods=pods,
        restart=serves - started,
        ledger=serves - leads,
    )


def began_to_list(log: str) -> float:
    """When a leader last began to list pods, in seconds since the epoch."""
    for line in reversed(log.splitlines()):
        if _LEADS in line:
            said = json.loads(line)
            return datetime.fromisoformat(said["timestamp"]).timestamp()
    raise NotTold(f'the extender never said "{_LEADS}"')
