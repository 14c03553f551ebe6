"""Messages of a bounded size, whatever a pod brings along."""

from __future__ import annotations

from collections.abc import Sequence

#: What the API server shows of each warning where all of them are too long for it together
#: (4096 characters: apiserver, endpoints/filters/warning.go).
WARNING_LENGTH = 256
MOST_WARNINGS = 16

#: A fault says what to write instead, and that comes last.
FAULT_LENGTH = 512
MOST_FAULTS = 20


def warnings_to_tell(warnings: Sequence[str]) -> tuple[str, ...]:
    """Return warnings that the API server passes on whole."""
    return _bounded(warnings, most=MOST_WARNINGS, length=WARNING_LENGTH, what="warnings")


def faults_to_tell(faults: Sequence[str]) -> tuple[str, ...]:
    """Return faults that can be read in one message."""
    return _bounded(faults, most=MOST_FAULTS, length=FAULT_LENGTH, what="faults")


def _bounded(texts: Sequence[str], *, most: int, length: int, what: str) -> tuple[str, ...]:
    texts = tuple(dict.fromkeys(texts))
    if len(texts) > most:
        texts = (*texts[: most - 1], f"and {len(texts) - most + 1} {what} more")
    return tuple(cut(text, length) for text in texts)


def cut(text: str, length: int) -> str:
    """Return a text of at most that many characters, which shows where it was cut."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
