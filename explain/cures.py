"""What ends each cause that is about nodes, in sentences and commands. Data only.

`{node}` is the first node of a group, `{key}` the taint or label that it is about. What depends on
who holds which GPU is in `openings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from explain.causes import Cause
from gpus.annotations import PATH_WISH_LABEL

AGENTS = (
    "kubectl -n gpudetour-system get pods -l app.kubernetes.io/name=gpudetour-node-agent -o wide"
)
_DOCTOR = "gpudetour doctor --node {node}"
_AGENT_THERE = f"{AGENTS} --field-selector spec.nodeName={{node}}"

_CURES: Mapping[Cause, tuple[str, ...]] = {
    Cause.FITS: ("by itself, within seconds; ask again",),
    Cause.RESOURCES: (
        "other pods there end, or the pod asks for less",
        "kubectl describe node {node}",
    ),
    Cause.OTHER_REASON: ("kubectl describe node {node}",),
    Cause.SETTLING: ("by itself, mostly within 5 minutes", _DOCTOR),
    Cause.STALE_ZERO: (
        "gpudetour's agent removes it by itself, once kubelet has forgotten the plugin",
        _AGENT_THERE,
        _DOCTOR,
    ),
    Cause.AGENT_SILENT: (_AGENT_THERE, _DOCTOR),
    Cause.AGENT_MISSING: (_AGENT_THERE, _DOCTOR),
    Cause.HOLDER_UNKNOWN: ("delete that pod and create it again",),
    Cause.UNHEALTHY: (
        "by itself when they have shown no failure for a minute; after some Xids a reset is needed",
        _DOCTOR,
    ),
    Cause.TAINT: (
        "add a toleration of {key} to the pod, or take the taint away:",
        "kubectl taint nodes {node} {key}-",
    ),
    Cause.CORDONED: ("kubectl uncordon {node}",),
    Cause.NOT_READY: ("kubectl describe node {node}",),
    Cause.SELECTOR: ("change the pod's nodeSelector or affinity, or label a node as it asks",),
    Cause.TOO_FEW: ("ask for fewer GPUs, or make several pods",),
    Cause.SHARE: (f"kubectl label node {{node}} {PATH_WISH_LABEL}=annotation",),
    Cause.KIND: ("ask for a kind that a node has: gpudetour gpus",),
    Cause.MEMORY: ("ask for less memory, or wait for a node with larger GPUs",),
}


def cures(cause: Cause, *, node: str, detail: str) -> Iterator[str]:
    """Yield what ends a cause at a node."""
    key = detail.partition("=")[0].partition(":")[0]
    for text in _CURES.get(cause, ()):
        # Not str.format: names and details are foreign text.
        yield text.replace("{node}", node).replace("{key}", key)
