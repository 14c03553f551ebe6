"""Why a pod cannot be served as it is written, each fault with what to write instead. Pure.

What no GPU can grant is `gpus.demand`; here is what the rest of the pod says against it. The API
server would find some of these itself, but only after us and in its own words.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from gpus.demand import is_gpu_resource
from gpus.model import GPU_RESOURCE
from gpus.quantity import MAX, QuantityError, parse
from kube.objects import Quantity, Resources
from webhook.shape import Container, Expression, Spec

#: Where the toolkit looks for mounts that stand for devices (`accept-nvidia-visible-devices-as-
#: volume-mounts`). It compares the beginning of the cleaned path as text.
_DEVICE_MOUNTS = "/var/run/nvidia-container-devices"
#: Node labels that say what system runs there: core/v1 LabelOSStable, and before 1.14.
_OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")
_WINDOWS = "windows"

#: Characters of a user's own text that a message repeats.
_SHOWN = 100


def is_for_windows(spec: Spec) -> bool:
    """Tell whether a pod says that it runs on Windows, where kubelet refuses it otherwise."""
    selector = spec.node_selector or {}
    named = spec.os is not None and spec.os.name == _WINDOWS
    return named or any(selector.get(label) == _WINDOWS for label in _OS_LABELS)


def misplaced(spec: Spec, label: tuple[str, str]) -> Iterator[str]:
    """Yield what keeps a pod from the nodes that have GPUs, which carry that label."""
    key, value = label
    if node := spec.node_name:
        yield (
            f"spec.nodeName is {node[:_SHOWN]!r}, which skips the scheduler, and only the "
            "scheduler gives GPUs out: remove it and write "
            f"spec.nodeSelector {{kubernetes.io/hostname: {node[:_SHOWN]}}} instead"
        )
    selected = (spec.node_selector or {}).get(key)
    if selected not in (None, value):
        yield (
            f"spec.nodeSelector has {key}: {selected[:_SHOWN]!r}, but nodes with GPUs "
            f"have {value!r}: remove the entry"
        )
    if _never_holds(spec, key, value):
        yield (
            f"spec.affinity.nodeAffinity requires {key} to be other than {value!r}, which nodes "
            "with GPUs have: remove that requirement"
        )
    if is_for_windows(spec):
        yield (
            "the pod is for Windows (spec.os.name, or spec.nodeSelector kubernetes.io/os), and "
            "GPUs are served on Linux nodes only: remove that, or ask for no GPU"
        )


def _never_holds(spec: Spec, key: str, value: str) -> bool:
    node = spec.affinity.node_affinity if spec.affinity else None
    terms = node.required.node_selector_terms if node and node.required else None
    return bool(terms) and all(
        any(_denies(expression, key, value) for expression in term.match_expressions or ())
        for term in terms or ()
    )


def _denies(expression: Expression, key: str, value: str) -> bool:
    if expression.key != key:
        return False
    named = value in (expression.values or ())
    match expression.operator:
        case "In":
            return not named
        case "NotIn":
            return named
        case operator:
            return operator == "DoesNotExist"


def misused_requests(spec: Spec) -> Iterator[str]:
    """Yield where GPUs are asked for in places or ways that Kubernetes does not know."""
    for container in (*(spec.init_containers or ()), *spec.containers):
        yield from _uneven(container)
    for name in _gpus_of(spec.resources):
        yield (
            f"spec.resources has {name[:_SHOWN]}, but a pod as a whole cannot ask for GPUs: "
            "write it in spec.containers[].resources"
        )
    if spec.ephemeral_containers:
        yield (
            "spec.ephemeralContainers cannot be set when a pod is created: remove it, and use "
            "`kubectl debug` when the pod runs"
        )


def _uneven(container: Container) -> Iterator[str]:
    """Yield where requests and limits differ: core/validation ValidateResourceRequirements."""
    if container.resources is None:
        return
    limits, requests = container.resources.limits or {}, container.resources.requests or {}
    for name in _gpus_of(Resources(requests=requests)):
        told = f"container {container.name[:_SHOWN]!r}, {name[:_SHOWN]}: "
        request, limit = requests[name], limits.get(name)
        if limit is None:
            yield f"{told}it is under requests only; write it under limits"
        elif not _equal(request, limit):
            yield (
                f"{told}requests {_shown(request)} and limits {_shown(limit)} differ; "
                "write it under limits only"
            )


def _equal(request: Quantity, limit: Quantity) -> bool:
    if request == limit:
        return True
    try:
        return parse(request) == parse(limit)
    except QuantityError:
        return False


def _shown(quantity: Quantity) -> str:
    if isinstance(quantity, int) and abs(quantity) > MAX:
        return "more than there can be"  # Python refuses to write very long ones
    return str(quantity)[:_SHOWN]


def smuggled_mounts(containers: list[Container]) -> Iterator[str]:
    """Yield every mount by which the NVIDIA runtime would show devices that nobody gave out."""
    for container in containers:
        for mount in container.volume_mounts or ():
            # Kubelet makes a relative path absolute, and the toolkit cleans it.
            path = posixpath.normpath("/" + mount.mount_path.lstrip("/"))
            if path.startswith(_DEVICE_MOUNTS):
                yield (
                    f"container {container.name[:_SHOWN]!r} mounts a volume at {path[:_SHOWN]}, "
                    f"where the NVIDIA runtime reads which GPUs to show: remove the mount, and "
                    f"write limits {{{GPU_RESOURCE}: 1}}"
                )


def asked_while_running(container: Container) -> Iterator[str]:
    """Yield why an ephemeral container gets no GPUs, where it asks for some."""
    for name in _gpus_of(container.resources):
        yield (
            f"ephemeral container {container.name[:_SHOWN]!r} asks for {name[:_SHOWN]}: GPUs are "
            "given to a pod when it is placed; remove the request, and ask in a pod of its own"
        )


def _gpus_of(resources: Resources | None) -> list[str]:
    if resources is None:
        return []
    named = {**(resources.requests or {}), **(resources.limits or {})}
    return sorted(filter(is_gpu_resource, named))
