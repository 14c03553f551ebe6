"""The JSON that kube-scheduler speaks with extenders (k8s.io/kube-scheduler/extender/v1).

The Go types carry no JSON tags, so their capitalised field names are the wire names; the Pod inside
is an ordinary one. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeVar

import msgspec

from gpus.model import NodeName, PodUid
from kube.objects import Pod

#: extender/v1 MaxExtenderPriority.
MAX_SCORE = 10

_CACHE_CAPABLE = "set nodeCacheCapable: true for this extender in the KubeSchedulerConfiguration"

T = TypeVar("T")


class ProtocolError(ValueError):
    """The request cannot be understood; the text says what to do about it."""


class ExtenderArgs(msgspec.Struct, rename="pascal", frozen=True):
    """Body of filter and prioritize; `node_names` is an array of names, or null.

    `Nodes`, which is not read, comes instead of `NodeNames` unless the scheduler's configuration
    says `nodeCacheCapable: true`.
    """

    pod: Pod | None = None
    node_names: msgspec.Raw = msgspec.Raw()


class NodeNames(Collection[NodeName]):
    """The names of a request, decoded only for who goes through them; else looked for in the text.

    kube-scheduler sends every node that its own filters leave, and mostly one of them is asked
    for. Decoding 5,000 names takes longer than all the rest of a filter. Raises `ProtocolError`
    where the text turns out to be something else than names.
    """

    __slots__ = ("_names", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._names: frozenset[NodeName] | None = None

    def __contains__(self, name: object) -> bool:
        # Names of objects need no escapes in JSON (RFC 1123 subdomains), but may be written so.
        if self._names is None and isinstance(name, str) and b"\\" not in self._text:
            return b'"%b"' % name.encode() in self._text
        return name in self._all()

    def __iter__(self) -> Iterator[NodeName]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> frozenset[NodeName]:
        if self._names is None:
            self._names = _decode(_NAMES, self._text)
        return self._names


class ExtenderFilterResult(msgspec.Struct, rename="pascal", frozen=True, omit_defaults=True):
    """Answer to filter; nodes of the request that are in no list are just not used."""

    node_names: list[NodeName] | None = None
    failed_nodes: dict[NodeName, str] = {}
    failed_and_unresolvable_nodes: dict[NodeName, str] = {}
    error: str = ""


class HostPriority(msgspec.Struct, rename="pascal", frozen=True):
    """One entry of the answer to prioritize; the score is 0 to 10."""

    host: NodeName
    score: int


class ExtenderBindingArgs(msgspec.Struct, rename="pascal", frozen=True):
    """Body of bind."""

    pod_name: str = ""
    pod_namespace: str = ""
    pod_uid: str = msgspec.field(default="", name="PodUID")
    node: str = ""


class ExtenderBindingResult(msgspec.Struct, rename="pascal", frozen=True):
    """Answer to bind; any text in `error` is a failure."""

    error: str = ""


class MetaPod(msgspec.Struct, frozen=True):
    uid: PodUid = msgspec.field(default=PodUid(""), name="UID")


class MetaVictims(msgspec.Struct, rename="pascal", frozen=True):
    """Whom kube-scheduler would evict from one node."""

    pods: list[MetaPod] | None = None
    #: extender/v1 writes it as NumPDBViolations.
    violations: int = msgspec.field(default=0, name="NumPDBViolations")


class ExtenderPreemptionArgs(msgspec.Struct, rename="pascal", frozen=True):
    """Body of preempt; `NodeNameToVictims` comes instead where `nodeCacheCapable` is false."""

    pod: Pod | None = None
    node_name_to_meta_victims: dict[NodeName, MetaVictims] | None = None


class ExtenderPreemptionResult(msgspec.Struct, rename="pascal", frozen=True):
    """Answer to preempt: the nodes where these victims may be evicted; none at all where empty."""

    node_name_to_meta_victims: dict[NodeName, MetaVictims]


class Failure(msgspec.Struct, rename="pascal", frozen=True):
    """The answer to any verb that failed: every result type but prioritize's has this field."""

    error: str


_ARGS = msgspec.json.Decoder(ExtenderArgs)
_NAMES = msgspec.json.Decoder(frozenset[NodeName])
_BINDING_ARGS = msgspec.json.Decoder(ExtenderBindingArgs)
_PREEMPTION_ARGS = msgspec.json.Decoder(ExtenderPreemptionArgs)
_ENCODER = msgspec.json.Encoder()


def decode_args(body: bytes) -> tuple[Pod, NodeNames]:
    """Read the body of filter or prioritize: the pod and the names of the candidate nodes."""
    args = _decode(_ARGS, body)
    pod, names = _identified(args.pod), bytes(args.node_names)
    if names in (b"", b"null"):
        raise ProtocolError(f"NodeNames is missing: {_CACHE_CAPABLE}")
    if not names.startswith(b"["):
        raise ProtocolError("NodeNames is not a list of names")
    return pod, NodeNames(names)


def decode_binding_args(body: bytes) -> ExtenderBindingArgs:
    """Read the body of bind."""
    args = _decode(_BINDING_ARGS, body)
    if not (args.pod_name and args.pod_namespace and args.pod_uid and args.node):
        raise ProtocolError("PodName, PodNamespace, PodUID and Node must all be given")
    return args


def decode_preemption_args(body: bytes) -> tuple[Pod, dict[NodeName, MetaVictims]]:
    """Read the body of preempt: the pod, and whom the scheduler would evict from which node."""
    args = _decode(_PREEMPTION_ARGS, body)
    pod = _identified(args.pod)
    if args.node_name_to_meta_victims is None:
        raise ProtocolError(f"NodeNameToMetaVictims is missing: {_CACHE_CAPABLE}")
    return pod, args.node_name_to_meta_victims


def encode(answer: Any) -> bytes:
    """Write an answer."""
    return _ENCODER.encode(answer)


def _identified(pod: Pod | None) -> Pod:
    if pod is None:
        raise ProtocolError("Pod is missing")
    meta = pod.metadata
    if not (meta.name and meta.namespace and meta.uid):
        raise ProtocolError("Pod.metadata needs name, namespace and uid")
    return pod


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    if not body:
        raise ProtocolError("the body is empty")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolError(f"the body is not what kube-scheduler sends: {error}") from error
    except RecursionError:
        raise ProtocolError("the body is nested too deeply") from None
