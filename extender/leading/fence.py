"""Proves that the API server refuses leaders of the past, before a new one gives anything away.

The fencing policy compares the epoch in each Binding with the Lease. API servers learn of a changed
Lease by a watch, a few milliseconds late; until then a leader that was frozen could still bind. So
a new leader asks with dry runs, which are never stored but are judged like the real thing.
BindingREST.Create judges first and looks for the pod afterwards (pkg/registry/core/pod/storage):
for a pod that does not exist, 404 means "the policy lets it pass", 403 that something refused it.
"""

from __future__ import annotations

import threading
import time
from enum import StrEnum

from extender.binding import handover
from gpus.model import Assignment, NodeName
from kube.client import Client
from kube.errors import Forbidden, Invalid, KubeError, NotFound

_PROBE_POD = "gpudetour-fence-probe"
_PROBE_NODE = NodeName("gpudetour-fence-probe")
#: Seconds between questions while the answer is not yet what it must become.
_EVERY = 0.02


class FenceMode(StrEnum):
    """Whether to serve without the policy."""

    REQUIRE = "require"
    OFF = "off"


class Fence:
    """Asks the API server whether an epoch is in force; times in seconds."""

    def __init__(self, client: Client, *, namespace: str, timeout: float = 10.0) -> None:
        self._client = client
        self._namespace = namespace
        self._timeout = timeout

    def prove(self, epoch: int, *, stop: threading.Event) -> str | None:
        """Wait until Bindings of the epoch before are refused and those of `epoch` pass.

        Returns None then, or what is wrong and what to do when that is not so within `timeout`
        seconds or when `stop` is set.
        """
        deadline = time.monotonic() + self._timeout
        while (fault := self._fault(epoch)) is not None:
            if time.monotonic() >= deadline or stop.wait(_EVERY):
                return fault
        return None

    def _fault(self, epoch: int) -> str | None:
        try:
            if self._refusal(epoch - 1) is None:
                return (
                    f"the API server lets Bindings of epoch {epoch - 1} pass in epoch {epoch}: "
                    "apply the policies gpudetour-fence and gpudetour-assign (in manifests), "
                    "or run a single replica with --fence=off"
                )
            if (refusal := self._refusal(epoch)) is not None:
                return (
                    f"the API server refuses Bindings of epoch {epoch}: {refusal}; check the "
                    "rights of this service account and the Lease that gpudetour-fence names"
                )
        except KubeError as error:
            return f"the fence cannot be tried: {error}"
        return None

    def _refusal(self, epoch: int) -> str | None:
        """Return why a Binding of that epoch is refused, None when it is not."""
        body = handover.binding(
            _PROBE_POD,
            namespace=self._namespace,
            uid=None,
            node=_PROBE_NODE,
            assignment=Assignment(epoch=epoch),
        )
        path = handover.binding_path(self._namespace, _PROBE_POD)
        try:
            self._client.create(path, body, params={"dryRun": "All"})
        except NotFound:
            return None
        except (Forbidden, Invalid) as error:
            return str(error)
        return None
