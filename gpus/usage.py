"""GPU time by namespace, and how a month of it is written in a ConfigMap. Pure.

A whole GPU held for an hour is 3,600 GPU-seconds, whatever it does; a share counts by its part of
the GPU's memory, a MIG instance by its compute slices. Time is kept by the hour in which it passed.
Where a month outgrows a ConfigMap, hours become days, and then the least users one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from kube.wire import decoder

#: Name of the ConfigMap of a month, which follows as YYYY-MM.
CONFIG_MAP_PREFIX = "gpudetour-usage-"
#: Keys of its data that are no namespaces; a namespace has no underscore in its name.
_RECORD, _INSTALLED = "_record", "_installed"
#: Those whose time is no longer told apart.
OTHERS = "_others"
VERSION = 1
#: Bytes of data that a ConfigMap of ours may have; the API server takes 1 MiB.
MOST_BYTES = 900_000
#: A key of ConfigMap data, and what we keep there beside `_others`: a DNS label.
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DAY = 24
#: More than the time of all others takes, a number for each day.
_OTHERS_BYTES = 2048
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")

Seconds = Mapping[int, float]


class UsageError(ValueError):
    """A record that cannot be read; the text says which part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A stretch in which nothing changed: GPUs that each namespace held, and all there were."""

    begin: datetime
    end: datetime
    held: Mapping[str, float]
    installed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """GPU-seconds by namespace and hour of the month, 0 being its first.

    `upto` is the moment up to which time has been counted: whoever counts goes on from there, so
    nothing is counted twice.
    """

    name: str
    upto: datetime | None = None
    held: Mapping[str, Seconds] = field(default_factory=dict)
    installed: Seconds = field(default_factory=dict)

    @property
    def begin(self) -> datetime:
        """The first moment of the month (UTC)."""
        return _first(self.name)

    def since(self, moment: datetime) -> dict[str, float]:
        """Return GPU-seconds by namespace since then; the hour of that moment counts whole."""
        first = (moment - self.begin) // timedelta(hours=1)
        return {
            name: sum(amount for hour, amount in seconds.items() if hour >= first)
            for name, seconds in self.held.items()
        }

    def installed_since(self, moment: datetime) -> float:
        """Return GPU-seconds that there were in all, held or not."""
        first = (moment - self.begin) // timedelta(hours=1)
        return sum(amount for hour, amount in self.installed.items() if hour >= first)


def month_of(moment: datetime) -> str:
    """Return the name of the month in which that is, by UTC."""
    return f"{moment.astimezone(UTC):%Y-%m}"


def months_between(begin: datetime, end: datetime) -> list[str]:
    """Return the names of the months from the one to the other, both included."""
    names, at = [month_of(begin)], _following(_first(month_of(begin)))
    while at <= end:
        names.append(month_of(at))
        at = _following(at)
    return names


def counted(month: Month, slices: Iterable[Slice]) -> Month:
    """Return the month with what of the slices lies in it and has not been counted yet."""
    held = {name: dict(seconds) for name, seconds in month.held.items()}
    installed = dict(month.installed)
    upto, end = month.upto, _following(month.begin)
    for each in sorted(slices, key=lambda slice_: slice_.begin):
        begin = max(each.begin, month.begin, upto or month.begin)
        for hour, seconds in _hours(begin, min(each.end, end), month.begin):
            installed[hour] = installed.get(hour, 0.0) + each.installed * seconds
            for name, gpus in each.held.items():
                own = held.setdefault(name, {})
                own[hour] = own.get(hour, 0.0) + gpus * seconds
        if each.end > begin:
            upto = min(each.end, end)
    return replace(month, upto=upto, held=held, installed=installed)


def bounded(month: Month, *, most: int = MOST_BYTES) -> dict[str, str]:
    """Write a month as the data of a ConfigMap of at most so many bytes."""
    recent = _DAY * 2
    last = (month.upto - month.begin) // timedelta(hours=1) if month.upto else 0
    data: dict[str, str] = {}
    for before in (0, last - recent, last + 1):
        data = _written(_by_day(month, before=before))
        if _size(data) <= most:
            return data
    return _fewer(_by_day(month, before=last + 1), data, most=most)


def _fewer(month: Month, data: Mapping[str, str], *, most: int) -> dict[str, str]:
    """Put the least users together until the rest fits; `data` is the month, written."""
    size = _size(data) + _OTHERS_BYTES
    users = sorted(month.held, key=lambda name: (sum(month.held[name].values()), name))
    merged = {OTHERS}
    for name in users:
        if size <= most:
            break
        if name != OTHERS:
            merged.add(name)
            size -= len(name) + len(data[name])
    return _written(replace(month, held=_merged(month.held, merged)))


def read_month(name: str, data: Mapping[str, str]) -> tuple[Month, list[str]]:
    """Read the data of a ConfigMap; also return what of it cannot be read, and is left out."""
    faults: list[str] = []

    def seconds(key: str) -> Seconds:
        try:
            return _decode(data[key], _Seconds).seconds
        except UsageError as error:
            faults.append(f"{key}: {error}")
            return {}

    upto: datetime | None = None
    if _RECORD in data:
        try:
            upto = _decode(data[_RECORD], _Record).upto
        except UsageError as error:
            faults.append(f"{_RECORD}: {error}")
    users = [key for key in data if key == OTHERS or _NAMESPACE.fullmatch(key)]
    month = Month(
        name=name,
        upto=upto,
        held={key: seconds(key) for key in users},
        installed=seconds(_INSTALLED) if _INSTALLED in data else {},
    )
    return month, faults


_Hour = Annotated[int, msgspec.Meta(ge=0, le=31 * _DAY - 1)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _Versioned(msgspec.Struct):
    v: int


class _Seconds(_Versioned):
    seconds: dict[_Hour, _Amount]


class _Record(_Versioned):
    upto: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_Wire = TypeVar("_Wire", bound=_Versioned)


def _decode(text: str, wire: type[_Wire]) -> _Wire:
    try:
        version = decoder(_Versioned).decode(text).v
        if version != VERSION:
            raise UsageError(f"version {version} is not known to this release")
        return decoder(wire).decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise UsageError(str(error)) from error


def _written(month: Month) -> dict[str, str]:
    data = {name: _encode(seconds) for name, seconds in sorted(month.held.items())}
    record = _Record(v=VERSION, upto=month.upto)
    return {
        _RECORD: msgspec.json.encode(record).decode(),
        _INSTALLED: _encode(month.installed),
        **data,
    }


def _encode(seconds: Seconds) -> str:
    whole = {hour: round(seconds[hour]) for hour in sorted(seconds)}
    return msgspec.json.encode({"v": VERSION, "seconds": whole}).decode()


def _size(data: Mapping[str, str]) -> int:
    return sum(len(key) + len(text) for key, text in data.items())


def _by_day(month: Month, *, before: int) -> Month:
    """Put the hours of each day before that hour together, under the first hour of the day."""

    def merged(seconds: Seconds) -> Seconds:
        days: dict[int, float] = {}
        for hour, amount in seconds.items():
            at = hour - hour % _DAY if hour < before else hour
            days[at] = days.get(at, 0.0) + amount
        return days

    return replace(
        month,
        held={name: merged(seconds) for name, seconds in month.held.items()},
        installed=merged(month.installed),
    )


def _merged(held: Mapping[str, Seconds], names: set[str]) -> dict[str, Seconds]:
    rest = {name: seconds for name, seconds in held.items() if name not in names}
    others: dict[int, float] = {}
    for name in names:
        for hour, amount in held.get(name, {}).items():
            others[hour] = others.get(hour, 0.0) + amount
    return {**rest, OTHERS: others}


def _hours(begin: datetime, end: datetime, origin: datetime) -> Iterable[tuple[int, float]]:
    """Yield the hours that a stretch touches, and how many seconds of it lie in each."""
    while begin < end:
        hour = (begin - origin) // timedelta(hours=1)
        until = min(end, origin + timedelta(hours=hour + 1))
        yield hour, (until - begin).total_seconds()
        begin = until


def _first(name: str) -> datetime:
    found = _MONTH.fullmatch(name)
    if found is None:
        raise UsageError(f"{name!r} is no month such as 2026-11")
    return datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)


def _following(moment: datetime) -> datetime:
    """Return the first moment of the month after."""
    return (moment.replace(day=1) + timedelta(days=32)).replace(day=1)
