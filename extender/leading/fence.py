"""Has the API server refuse leaders of the past, and proves it before anything is given away.

The fencing policy compares the epoch in each Binding with the annotation `gpudetour.io/epoch` of
our ServiceAccount, which a new leader writes. API servers learn of that by a watch, a few
milliseconds late; until then a leader that was frozen could still bind. So a new leader asks with
dry runs, which are never stored but are judged like the real thing. BindingREST.Create judges first
and looks for the pod afterwards (pkg/registry/core/pod/storage): for a pod that does not exist, 404
means "the policy lets it pass", 403 that something refused it.

The Lease itself is no parameter for a policy: once no policy names its kind any more,
kube-apiserver (1.34.2) has a stopped informer for it until it is restarted, and nothing could be
installed again. Its informer of ServiceAccounts is its own and never stops.
"""

from __future__ import annotations

import re
import threading
import time
from enum import StrEnum

from extender.binding import handover
from gpus.annotations import EPOCH
from gpus.model import Assignment, NodeName
from kube.client import MERGE_PATCH, Client
from kube.errors import Forbidden, Invalid, KubeError, NotFound
from kube.leases import plausible
from kube.objects import Object

_PROBE_POD = "gpudetour-fence-probe"
_PROBE_NODE = NodeName("gpudetour-fence-probe")
#: Seconds between questions while the answer is not yet what it must become.
_EVERY = 0.02
#: The ServiceAccount that bears the epoch, as manifests/chart/templates/policy-fence.yaml names it.
ACCOUNT = "gpudetour-extender"

_DIGITS = re.compile(r"[0-9]{1,10}")


class Outdone(Exception):
    """A later epoch than ours has begun already; `epoch` tells which."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"epoch {epoch} has begun already, a later one will be taken")
        self.epoch = epoch


class FenceMode(StrEnum):
    """Whether to serve without the policy."""

    REQUIRE = "require"
    OFF = "off"


class Fence:
    """Puts an epoch in force, and asks the API server whether it is; times in seconds."""

    def __init__(self, client: Client, *, namespace: str, timeout: float = 10.0) -> None:
        self._client = client
        self._namespace = namespace
        self._account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}"
        self._timeout = timeout

    def prove(self, epoch: int, *, stop: threading.Event) -> str | None:
        """Begin an epoch; wait until Bindings of the one before are refused and its own pass.

        Returns None then, or what is wrong and what to do when that is not so within `timeout`
        seconds or when `stop` is set. Raises `Outdone`.
        """
        deadline = time.monotonic() + self._timeout
        while (fault := self._fault(epoch)) is not None:
            if time.monotonic() >= deadline or stop.wait(_EVERY):
                return fault
        return None

    def stands(self, epoch: int) -> bool:
        """Tell whether this epoch is the one that was begun last, as far as can be known."""
        try:
            return _epoch_of(self._read()) == epoch
        except KubeError:
            return True

    def _read(self) -> Object:
        return self._client.get(self._account, type=Object)

    def _begin(self, epoch: int) -> None:
        """Write that an epoch has begun; a leader that was frozen meanwhile cannot take it back."""
        account = self._read()
        begun = _epoch_of(account)
        if begun > epoch:
            raise Outdone(begun)
        if begun < epoch:
            metadata = {
                "resourceVersion": account.metadata.resource_version,
                "annotations": {EPOCH: str(epoch)},
            }
            self._client.patch(self._account, {"metadata": metadata}, content_type=MERGE_PATCH)

    def _fault(self, epoch: int) -> str | None:
        try:
            self._begin(epoch)
            if self._refusal(epoch - 1) is None:
                return (
                    f"the API server lets Bindings of epoch {epoch - 1} pass in epoch {epoch}: "
                    "apply the policies gpudetour-fence and gpudetour-assign (in manifests), "
                    "or run a single replica with --fence=off"
                )
            if (refusal := self._refusal(epoch)) is not None:
                return (
                    f"the API server refuses Bindings of epoch {epoch}: {refusal}; check the "
                    f"rights of this service account, and that gpudetour-fence names {ACCOUNT}"
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


def _epoch_of(account: Object) -> int:
    """Return the epoch that was begun last; 0 where nothing tells one that we could have begun."""
    told = (account.metadata.annotations or {}).get(EPOCH, "")
    return plausible(int(told)) if _DIGITS.fullmatch(told) else 0
