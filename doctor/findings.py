"""The words in which checks answer, and what a check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from doctor.facts.facts import Facts


class Outcome(StrEnum):
    """How a check ended; only `BROKEN` keeps GPUs from being used."""

    OK = "ok"
    BROKEN = "broken"
    WARNING = "warning"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"


class Need(Enum):
    """What must be there for a check to make sense."""

    HOST = auto()
    CLUSTER = auto()
    GPU = auto()
    PLUGIN = auto()
    LOG = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a check saw, and the commands that mend it; lines that begin with `#` explain."""

    outcome: Outcome
    saw: str
    mend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked; `title` says what is true when all is well."""

    id: str
    title: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Question):
    """A question with an answer in the facts.

    `causes` are checks whose failure explains a failure of this one. `reads` are paths on which a
    failure rests: where something below them was closed to us, it is no failure but unknown.
    """

    look: Callable[[Facts], Result]
    needs: frozenset[Need] = frozenset()
    causes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A check with its result; `because_of` names the failed checks that explain it."""

    check: Question
    result: Result
    because_of: tuple[str, ...] = ()


def ok(saw: str) -> Result:
    """All is well."""
    return Result(outcome=Outcome.OK, saw=saw)


def broken(saw: str, *mend: str) -> Result:
    """GPUs cannot be used because of this."""
    return Result(outcome=Outcome.BROKEN, saw=saw, mend=mend)


def warning(saw: str, *mend: str) -> Result:
    """It works, and somebody should look at it all the same."""
    return Result(outcome=Outcome.WARNING, saw=saw, mend=mend)


def unknown(saw: str, *mend: str) -> Result:
    """It could not be read."""
    return Result(outcome=Outcome.UNKNOWN, saw=saw, mend=mend)


def not_applicable(saw: str) -> Result:
    """The question does not arise here."""
    return Result(outcome=Outcome.NOT_APPLICABLE, saw=saw)
