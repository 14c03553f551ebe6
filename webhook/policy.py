"""What an admin may choose about pods, and what tells NVIDIA's runtimes. Values only.

Where the choices come from is `webhook.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: RuntimeClass names and handlers that start so are NVIDIA's (nvidia, nvidia-cdi, nvidia-legacy).
NVIDIA = "nvidia"


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
