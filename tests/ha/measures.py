"""What the proof of high availability measured, and how it is told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Causes of refusals that are told, the most frequent ones.
_CAUSES = 8


@dataclass(slots=True, kw_only=True)
class Measures:
    """Seconds until the next bind by what was done, and counts."""

    binds: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, fault: str, seconds: float) -> float:
        """Keep how long the next bind took after a fault; returns it."""
        self.seconds[fault].append(seconds)
        return seconds

    def lines(self) -> Iterator[str]:
        """The table, if anything was measured."""
        if not self.binds:
            return
        yield f"high availability: {self.binds} binds, seconds to the next one after"
        for fault, seconds in self.seconds.items():
            times = f" (the longest of {len(seconds)})" if len(seconds) > 1 else ""
            yield f"  {fault:<46}{max(seconds):6.2f}{times}"
        total = self.refused.total()
        share = 100 * total / (total + self.binds)
        yield f"  binds refused by the extender: {total} ({share:.1f} % of all attempts)"
        for cause, count in self.refused.most_common(_CAUSES):
            yield f"  {count:>6} {cause}"
