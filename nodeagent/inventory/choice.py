"""Which GPUs of a node shall be given out at all, by an admin's lists. Pure.

A GPU is named by its UUID, its PCI address, its index, or the word `display` for all that drive a
screen. Indices are those under which NVML first listed a GPU: they move when another GPU is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gpus.model import DeviceId, Gpu

DISPLAY = "display"

_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?")
_UUID = re.compile(r"GPU-[A-Za-z0-9-]{1,90}")

_Term = Callable[[Gpu, int], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The two lists as they were written; exclusion wins, no first list means all."""

    only: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        _terms(self.only, "--gpus")
        _terms(self.exclude, "--exclude-gpus")

    def refusal(self, gpu: Gpu, *, first_index: int) -> str | None:
        """Why this GPU shall not be given out, None if it may."""
        if _any(_terms(self.exclude, "--exclude-gpus"), gpu, first_index):
            return "excluded by --exclude-gpus"
        only = _terms(self.only, "--gpus")
        if only and not _any(only, gpu, first_index):
            return "not named by --gpus"
        return None


def _any(terms: list[_Term], gpu: Gpu, first_index: int) -> bool:
    return any(term(gpu, first_index) for term in terms)


def _terms(text: str, option: str) -> list[_Term]:
    """Read a list; raises `ValueError` that names the option and the word."""
    return [_term(word, option) for word in filter(None, map(str.strip, text.split(",")))]


def _term(word: str, option: str) -> _Term:
    if word.lower() == DISPLAY:
        return lambda gpu, _index: gpu.display is True
    if word.isascii() and word.isdecimal():
        number = int(word[:9])
        return lambda _gpu, index: index == number
    if _UUID.fullmatch(word):
        uuid = DeviceId(word)
        return lambda gpu, _index: gpu.uuid == uuid
    if (address := normal_address(word)) is not None:
        return lambda gpu, _index: gpu.bdf == address
    raise ValueError(
        f"{option}: {word!r:.80} is none of a GPU's UUID, PCI address, index and `{DISPLAY}`"
    )


def normal_address(text: str) -> str | None:
    """A PCI address as sysfs writes it (`0000:01:00.0`); NVML's has an 8-digit domain."""
    match = _ADDRESS.fullmatch(text.strip().lower())
    if match is None:
        return None
    domain = int(match[1] or "0", 16)
    return f"{domain:04x}:{match[2]}:{match[3]}.{match[4] or '0'}"
