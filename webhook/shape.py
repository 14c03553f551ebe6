"""The parts of a raw pod that the webhook looks at, for checking their types only.

The pod itself stays the dict it came as, so that no field is lost; once it has passed `check`, the
code in `webhook.mutate` may rely on these types.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kube.objects import Pod
from kube.wire import convert

Raw = dict[str, Any]


class ShapeError(ValueError):
    """The pod is not built as the Kubernetes API builds pods."""


class _Wire(msgspec.Struct, rename="camel"):
    pass


class _EnvVar(_Wire):
    name: str


class _Container(_Wire):
    name: str
    env: list[_EnvVar] | None = None


class _Toleration(_Wire):
    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None


class _Metadata(_Wire):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Spec(_Wire):
    containers: list[_Container]
    init_containers: list[_Container] | None = None
    node_name: str | None = None
    node_selector: dict[str, str] | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    tolerations: list[_Toleration] | None = None


class _Shape(_Wire):
    spec: _Spec
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


def check(pod: Raw) -> Pod:
    """Return the typed view from which demand is counted; raises `ShapeError`."""
    try:
        convert(pod, _Shape)
        return convert(pod, Pod)
    except msgspec.ValidationError as error:
        raise ShapeError(f"the pod cannot be read: {error}") from error
