"""What a judgement comes to, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from explain.causes import Cause


class State(StrEnum):
    """How things stand with the pod."""

    WAITS = "waits"
    PLACED = "placed"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One cause: what was seen, and what ends it.

    `ends` are sentences, and commands where they begin with `kubectl` or `gpudetour`. `nodes` are
    those that it keeps from taking the pod; `count` how many, where their names are not known.
    `holders` are the pods (`namespace/name`) of which each would make room by ending.
    """

    cause: Cause
    saw: str
    ends: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    count: int = 0
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device that the pod holds; `health` is a word of `gpus.model.Health`, or empty."""

    uuid: str
    containers: tuple[str, ...] = ()
    index: int | None = None
    product: str | None = None
    memory_bytes: int | None = None
    health: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the pod is and with what.

    `chosen` says who chose these devices and how. `wishes` maps the pod's annotations to whether
    the devices meet them; None where that cannot be said. `look` are commands that show it.
    """

    node: str
    path: str
    devices: tuple[Device, ...] = ()
    share_bytes: int = 0
    chosen: str = ""
    wishes: Mapping[str, bool | None] = field(default_factory=dict)
    look: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer. `findings` has the right cause first; it is empty only where a pod is placed.

    `asks` is what the pod asks for, in words, and `scheduler` what the scheduler said last.
    """

    namespace: str
    name: str
    state: State
    asks: str = ""
    findings: tuple[Finding, ...] = ()
    placement: Placement | None = None
    scheduler: str = ""
    unreadable: Mapping[str, str] = field(default_factory=dict)
