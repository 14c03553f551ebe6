"""What Xids mean, which ones count against a GPU, and how long it must be quiet after one. Pure.

Meanings and remedies are those of NVIDIA's Xid catalog (docs.nvidia.com/deploy/xid-errors).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MEANINGS = {
    48: "double bit ECC error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    63: "row remapping or page retirement recorded",
    64: "row remapping or page retirement failed",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "high rate of single bit ECC errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "GSP timeout",
    120: "GSP error",
    140: "unrecovered ECC error",
    149: "NVLink error",
    154: "the needed recovery action changed",
}

#: After these the GPU or the node must be reset. Newer drivers tell when that was done (the
#: recovery action); for the others a GPU without a sign of failure is trusted later.
_NEED_A_RESET = frozenset({48, 61, 62, 64, 74, 79, 95, 119, 120, 140, 149})
_RESET_WEIGHT = 10.0

#: Faults of programs, not of GPUs: NVIDIA's device plugin ignores these by default.
_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})

_REASON = re.compile(r"Xid ([0-9]{1,9}): ")


def xid_reason(xid: int) -> str:
    """What an Xid means, for people."""
    meaning = _MEANINGS.get(xid, "see NVIDIA's Xid catalog")
    return f"Xid {xid}: {meaning}"


def xid_of(reason: str) -> int | None:
    """The Xid that a reason of `xid_reason` tells of; None of any other reason."""
    match = _REASON.match(reason)
    return int(match[1]) if match else None


def weight_of(reason: str) -> float:
    """How many times longer than usual a GPU must be quiet after a failure of this reason."""
    return _RESET_WEIGHT if xid_of(reason) in _NEED_A_RESET else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """Which signs count against a GPU.

    `heeds` an Xid as NVIDIA's device plugin does with the same two lists: those that are named in
    `enabled` always, else none that `disabled` names or that are programs' own faults.
    """

    enabled: frozenset[int] = frozenset()
    disabled: frozenset[int] = frozenset()
    every_xid: bool = False
    no_xid: bool = False
    #: Whether ECC errors, remapped rows and the recovery action count.
    counters: bool = True
    #: Degrees Celsius from which on a GPU is faulty; None: whatever it says.
    max_temperature: int | None = None

    def heeds(self, xid: int) -> bool:
        """Whether an Xid makes its GPU faulty."""
        if self.every_xid or xid in self.enabled:
            return True
        return not (self.no_xid or xid in self.disabled or xid in _OF_PROGRAMS)


def health_policy(disable: str, enable: str, *, max_temperature: int | None) -> HealthPolicy:
    """Read NVIDIA's DP_DISABLE_HEALTHCHECKS and DP_ENABLE_HEALTHCHECKS; raises `ValueError`.

    Each is a list of Xids with commas between; `all` and `xids` stand for every one. Health checks
    that NVIDIA's plugin does not have are switched off by `all`, and on by nothing else.
    """
    disabled_words, disabled = _read(disable, "DP_DISABLE_HEALTHCHECKS")
    enabled_words, enabled = _read(enable, "DP_ENABLE_HEALTHCHECKS")
    return HealthPolicy(
        enabled=enabled,
        disabled=disabled,
        every_xid=bool(enabled_words),
        no_xid=bool(disabled_words),
        counters="all" not in disabled_words,
        max_temperature=max_temperature,
    )


def _read(text: str, name: str) -> tuple[frozenset[str], frozenset[int]]:
    words, xids = set(), set()
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        if part in ("all", "xids"):
            words.add(part)
        elif part.isascii() and part.isdecimal() and len(part) < 10:
            xids.add(int(part))
        else:
            raise ValueError(f"{name}: {part!r:.40} is neither an Xid nor `all` nor `xids`")
    return frozenset(words), frozenset(xids)
