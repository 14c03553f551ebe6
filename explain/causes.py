"""Every cause that a pod has no GPU, in the order in which causes are told: the right one first.

Who stands before the others explains them: a pod that was never made cannot be short of CPU, and
while nobody answers the scheduler it does not matter how many GPUs are free. Of nodes, those come
first that are nearest to taking the pod: there it ends soonest.
"""

from __future__ import annotations

from enum import Enum


class Cause(Enum):
    """One cause: its name for programs and docs/troubleshooting.md, and its title for people."""

    # The pod does not exist: somebody refused it.
    WEBHOOK_DOWN = "webhook-down", "gpudetour's webhook does not answer, so GPU pods are refused"
    WEBHOOK_UNDONE = "webhook-undone", "another webhook undoes what gpudetour's has set"
    QUOTA = "quota", "the quota of the namespace is used up"
    RUNTIME_CLASS = "runtimeclass-missing", "the RuntimeClass that the pod names does not exist"
    REQUEST = "request-refused", "the pod cannot be served as it is written"
    POLICY = "policy-refused", "a policy of gpudetour refuses the pod"
    REFUSED = "refused", "the API server refuses the pod"
    MISSING = "no-such-pod", "there is no such pod, and no Event says that one was refused"

    # The pod itself, wherever it might run.
    ENDED = "ended", "the pod has ended"
    KUBELET_REFUSED = "kubelet-refused", "kubelet refused the pod on its node"
    CANNOT_START = "cannot-start", "the pod has its node, which cannot start it"
    DELETING = "deleting", "the pod is being deleted"
    IMPOSSIBLE = "impossible-request", "what the pod asks for cannot be granted anywhere"
    GATED = "gated", "the pod is held back by scheduling gates"
    UNLABELLED = "unlabelled", "the pod is older than the install, or went past the webhook"
    UNUSABLE = "pod-unusable", "the pod's device list is missing or another pod's"

    # Who places pods.
    OTHER_SCHEDULER = (
        "other-scheduler",
        "no scheduler of the name that the pod asks for looks at it",
    )
    NOT_CONFIGURED = "scheduler-not-configured", "the scheduler does not ask gpudetour's extender"
    CERTIFICATE = "certificate", "scheduler and extender do not trust each other's certificates"
    FENCE = "fence", "the API server's fence refuses what the extender writes"
    EXTENDER_DOWN = "extender-down", "gpudetour's extender does not answer the scheduler"
    SCHEDULER_SILENT = "scheduler-silent", "no scheduler has looked at the pod"
    MAKING_ROOM = "making-room", "other pods are being evicted for this one"

    # Nodes, the nearest to taking the pod first.
    FITS = "fits-now", "a node can take the pod, and the scheduler will try it"
    RESOURCES = "resources-short", "CPU, memory or another resource is short"
    OTHER_REASON = "other-reason", "the scheduler refuses the nodes for another reason"
    IN_USE = "gpus-in-use", "all GPUs that would do are in use"
    NOT_ENOUGH = "too-few-free", "some GPUs are free, but not enough on one node"
    SETTLING = "node-settling", "the node's GPU path is changing"
    STALE_ZERO = "stale-zero", "a zero that a device plugin left behind hides the GPUs"
    AGENT_SILENT = "agent-silent", "the node's agent is silent"
    AGENT_MISSING = "agent-missing", "no agent tells which GPUs the node has"
    HOLDER_UNKNOWN = "holder-unknown", "it cannot be said which GPUs a pod on the node holds"
    UNHEALTHY = "gpus-unhealthy", "GPUs are unhealthy"
    TAINT = "taint", "the pod does not tolerate a taint"
    CORDONED = "node-cordoned", "the node is cordoned"
    NOT_READY = "node-not-ready", "the node is not ready"
    SELECTOR = "selector", "the pod's node selector or affinity leaves the node out"
    NOT_CONNECTED = "not-connected", "the GPUs are not connected as the pod asks"
    TOO_FEW = "too-few", "the node has fewer GPUs than the pod asks for"
    MEMORY = "too-little-memory", "the GPUs have too little memory"
    COMPUTE = "too-low-compute", "the GPUs' compute capability is too low"
    UUID = "other-uuid", "none of the GPUs is one that the pod names"
    PRODUCT = "wrong-product", "no GPU is of the product that the pod asks for"
    SHARE = "no-shares-here", "shares of GPUs are not served on the plugin path"
    KIND = "other-kind", "no GPU is of the kind that the pod asks for"
    NO_GPU_NODES = "no-gpu-nodes", "no node has a GPU that gpudetour knows of"
    NO_GPU = "no-gpu", "the node has no GPU"

    #: Nothing that was read tells why, or too little could be read.
    UNKNOWN = "unknown", "what could be read does not tell why"

    def __init__(self, id: str, title: str) -> None:  # noqa: A002 - the field's name
        self.id = id
        self.title = title

    @property
    def rank(self) -> int:
        """Return its place in the order in which causes are told."""
        return _RANK[self]


_RANK = {cause: rank for rank, cause in enumerate(Cause)}
