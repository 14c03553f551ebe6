"""What every way of reading the inventory offers, and how it says that it cannot."""

from __future__ import annotations

from typing import Protocol

from gpus.model import NodeInventory


class InventoryError(Exception):
    """The GPUs cannot be read at all; the text says why and what to do next.

    `code` is the nvmlReturn_t where NVML gave one.
    """

    def __init__(self, detail: str, *, advice: str, code: int | None = None) -> None:
        super().__init__(f"{detail}; {advice}")
        self.detail = detail
        self.advice = advice
        self.code = code


class InventorySource(Protocol):
    """Reads the GPUs of this node."""

    def read(self) -> NodeInventory:
        """The machine as it is now; raises `InventoryError`."""
