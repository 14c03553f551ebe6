"""The half of a reflector that needs no network: what each listing and each line changes.

Sockets, threads and waiting are in `kube.reflector`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from kube.errors import ApiError, KubeError, api_error
from kube.objects import Object, ObjectMeta, Status
from kube.wire import decoder


class HasMetadata(Protocol):
    """Any of the structs in `kube.objects` that stand for whole objects."""

    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=HasMetadata)


class EventKind(StrEnum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """One change; a deleted object is given as it was last seen."""

    kind: EventKind
    object: T


class BadLine(KubeError):
    """A line of a watch that cannot be understood; what it said is lost unless read again."""


class Key(NamedTuple):
    """What names an object within one collection."""

    namespace: str
    name: str


class _Line(msgspec.Struct):
    """metav1.WatchEvent; what `object` is depends on `type`, so it stays as bytes until then."""

    type: str
    object: msgspec.Raw


class Mirror(Generic[T]):
    """What the handler has been told, and the version from which the watch goes on.

    Invariant: the events returned so far, applied in order to nothing, give exactly the objects
    held here; and for each object (a UID) they read ADDED, MODIFIED any number of times, DELETED.
    Versions are opaque: they are kept and compared for equality, never ordered.
    """

    def __init__(self, type: type[T]) -> None:  # noqa: A002 - as msgspec's and `Client`'s
        self._decode = decoder(type).decode
        self._objects: dict[Key, T] = {}
        self.version = ""

    def __len__(self) -> int:
        return len(self._objects)

    def relisted(self, objects: Iterable[T], *, version: str) -> list[Event[T]]:
        """Take a full listing in; return what is different from before, vanished objects first."""
        listed = {_key(found): found for found in objects}
        gone = [found for key, found in self._objects.items() if key not in listed]
        events = [event for found in gone for event in self._remove(found)]
        events += [event for found in listed.values() for event in self._put(found)]
        self.version = version
        return events

    def line(self, line: bytes) -> list[Event[T]]:
        """Take one line of the watch in; return what it changes, which may be nothing.

        Raises the `ApiError` that an ERROR line stands for, and `BadLine`. Then nothing has been
        taken in: `version` still is that of the line before.
        """
        try:
            envelope = decoder(_Line).decode(line)
            match envelope.type:
                case "ADDED" | "MODIFIED" | "DELETED":
                    found = self._decode(envelope.object)
                    version = _version(found)
                    changed = self._remove if envelope.type == "DELETED" else self._put
                    events = list(changed(found))
                    self.version = version
                    return events
                case "BOOKMARK":
                    self.version = _version(decoder(Object).decode(envelope.object))
                    return []
                case "ERROR":
                    raise _refusal(decoder(Status).decode(envelope.object))
                case unknown:
                    raise BadLine(f"watch event of unknown type {unknown[:32]!r}")
        except (msgspec.DecodeError, UnicodeError) as error:
            raise BadLine(f"watch event cannot be decoded: {error}") from error

    def _put(self, found: T) -> Iterator[Event[T]]:
        key, new = _key(found), found.metadata
        known = self._objects.get(key)
        if known is not None and known.metadata.uid != new.uid:
            # Deleted and created again under the same name while nobody was watching.
            yield from self._remove(known)
            known = None
        if known is not None and known.metadata.resource_version == new.resource_version:
            return
        self._objects[key] = found
        yield Event(EventKind.ADDED if known is None else EventKind.MODIFIED, found)

    def _remove(self, found: T) -> Iterator[Event[T]]:
        known = self._objects.get(_key(found))
        if known is not None and known.metadata.uid == found.metadata.uid:
            del self._objects[_key(found)]
            yield Event(EventKind.DELETED, found)


def _key(found: HasMetadata) -> Key:
    return Key(found.metadata.namespace, found.metadata.name)


def _version(found: HasMetadata) -> str:
    if not found.metadata.resource_version:
        raise BadLine("watch event without a resourceVersion")
    return found.metadata.resource_version


def _refusal(status: Status) -> ApiError:
    wait = (status.details or {}).get("retryAfterSeconds")
    return api_error(
        status.code or 500,
        reason=status.reason,
        message=status.message,
        retry_after=float(wait) if isinstance(wait, int) and wait > 0 else None,
    )
