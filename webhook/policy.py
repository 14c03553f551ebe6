"""What an admin may choose about pods. Values only; where they come from is `webhook.settings`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which nodes, runtime and scheduler pods that ask for GPUs get, and who is closed off."""

    runtime_class: str
    selector_key: str
    selector_value: str
    toleration_key: str
    #: The scheduler of pods that name none; empty: they stay with the default one.
    scheduler_name: str = ""
    #: Whether `/close` is served, for nodes whose default runtime is NVIDIA's.
    close_others: bool = False
