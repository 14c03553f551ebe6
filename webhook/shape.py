"""The parts of a raw pod that the webhook looks at, for checking their types and reading them.

The pod itself stays the dict it came as, so that no field is lost; once it has passed `check`, the
code that changes it may rely on these types.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kube.objects import Pod, Resources
from kube.wire import convert

Raw = dict[str, Any]


class ShapeError(ValueError):
    """The pod is not built as the Kubernetes API builds pods."""


class _Wire(msgspec.Struct, rename="camel"):
    pass


class EnvVar(_Wire):
    """An environment variable, whatever its value comes from."""

    name: str


class VolumeMount(_Wire):
    """Where a container sees a volume."""

    mount_path: str = ""


class Container(_Wire):
    """A container of any kind."""

    name: str
    env: list[EnvVar] | None = None
    resources: Resources | None = None
    volume_mounts: list[VolumeMount] | None = None


class Toleration(_Wire):
    """core/v1 Toleration."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None


class Expression(_Wire):
    """core/v1 NodeSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class Term(_Wire):
    """core/v1 NodeSelectorTerm; its requirements must all hold."""

    match_expressions: list[Expression] | None = None


class NodeTerms(_Wire):
    """core/v1 NodeSelector; one of its terms must hold."""

    node_selector_terms: list[Term] | None = None


class NodeAffinity(_Wire):
    """core/v1 NodeAffinity, of which preferences are none of our business."""

    required: NodeTerms | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )


class Affinity(_Wire):
    """core/v1 Affinity."""

    node_affinity: NodeAffinity | None = None


class Os(_Wire):
    """core/v1 PodOS."""

    name: str = ""


class Spec(_Wire):
    """core/v1 PodSpec."""

    containers: list[Container]
    init_containers: list[Container] | None = None
    ephemeral_containers: list[Container] | None = None
    affinity: Affinity | None = None
    node_name: str | None = None
    node_selector: dict[str, str] | None = None
    os: Os | None = None
    #: Of the whole pod (KEP-2837).
    resources: Resources | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    tolerations: list[Toleration] | None = None


class _Metadata(_Wire):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Shape(_Wire):
    spec: Spec
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


def check(pod: Raw) -> tuple[Pod, Spec]:
    """Return the typed views: the one that demand is counted from, and the webhook's own.

    Raises `ShapeError`.
    """
    try:
        return convert(pod, Pod), convert(pod, _Shape).spec
    except msgspec.ValidationError as error:
        raise ShapeError(f"the pod cannot be read: {error}") from error
