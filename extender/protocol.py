"""The JSON that kube-scheduler speaks with extenders (k8s.io/kube-scheduler/extender/v1).

The Go types carry no JSON tags, so their capitalised field names are the wire names; the Pod inside
is an ordinary one. Nothing is decided here.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from gpus.model import NodeName
from kube.objects import Pod

#: extender/v1 MaxExtenderPriority.
MAX_SCORE = 10

T = TypeVar("T")


class ProtocolError(ValueError):
    """The request cannot be understood; the text says what to do about it."""


class ExtenderArgs(msgspec.Struct, rename="pascal", frozen=True):
    """Body of filter and prioritize.

    `Nodes`, which is not read, comes instead of `NodeNames` unless the scheduler's configuration
    says `nodeCacheCapable: true`.
    """

    pod: Pod | None = None
    node_names: set[NodeName] | None = None


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


class Failure(msgspec.Struct, rename="pascal", frozen=True):
    """The answer to any verb that failed: every result type but prioritize's has this field."""

    error: str


_ARGS = msgspec.json.Decoder(ExtenderArgs)
_BINDING_ARGS = msgspec.json.Decoder(ExtenderBindingArgs)
_ENCODER = msgspec.json.Encoder()


def decode_args(body: bytes) -> tuple[Pod, set[NodeName]]:
    """Read the body of filter or prioritize: the pod and the names of the candidate nodes."""
    args = _decode(_ARGS, body)
    if args.pod is None:
        raise ProtocolError("Pod is missing")
    meta = args.pod.metadata
    if not (meta.name and meta.namespace and meta.uid):
        raise ProtocolError("Pod.metadata needs name, namespace and uid")
    if args.node_names is None:
        raise ProtocolError(
            "NodeNames is missing: set nodeCacheCapable: true for this extender in the "
            "KubeSchedulerConfiguration"
        )
    return args.pod, args.node_names


def decode_binding_args(body: bytes) -> ExtenderBindingArgs:
    """Read the body of bind."""
    args = _decode(_BINDING_ARGS, body)
    if not (args.pod_name and args.pod_namespace and args.pod_uid and args.node):
        raise ProtocolError("PodName, PodNamespace, PodUID and Node must all be given")
    return args


def encode(answer: Any) -> bytes:
    """Write an answer."""
    return _ENCODER.encode(answer)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    if not body:
        raise ProtocolError("the body is empty")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolError(f"the body is not what kube-scheduler sends: {error}") from error
    except RecursionError:
        raise ProtocolError("the body is nested too deeply") from None
