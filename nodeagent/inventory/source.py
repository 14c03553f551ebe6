"""What every way of looking at the GPUs offers, and how it says that it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gpus.model import Gpu, NodeInventory, Source, Withheld


class InventoryError(Exception):
    """The GPUs cannot be read at all; the text says why and what to do next.

    `code` is the nvmlReturn_t where NVML gave one.
    """

    def __init__(self, detail: str, *, advice: str, code: int | None = None) -> None:
        super().__init__(f"{detail}; {advice}")
        self.detail = detail
        self.advice = advice
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A GPU at one look. Unless `complete`, what was known of it counts more than its facts here;
    index and health always count.
    """

    gpu: Gpu
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One look at all GPUs of the machine; what was known before plays no part.

    `withheld` are GPUs that are there without a UUID by which they could be given out.
    """

    source: Source
    driver: str | None = None
    cuda: str | None = None
    sightings: tuple[Sighting, ...] = ()
    withheld: tuple[Withheld, ...] = ()


class SurveySource(Protocol):
    """One way of looking at the GPUs."""

    def survey(self) -> Survey:
        """The GPUs as they are now; raises `InventoryError`."""


class InventorySource(Protocol):
    """Reads the GPUs of this node."""

    def read(self) -> NodeInventory:
        """The machine as it is now; raises `InventoryError`."""

    def recall(self, published: NodeInventory) -> None:
        """Take what an agent before this one knew into account from the next `read` on."""
