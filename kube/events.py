"""Events, as `kubectl describe` shows them; counted where they repeat, bounded in every way."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import structlog

from kube import timestamps
from kube.backoff import Backoff
from kube.client import MERGE_PATCH, Client
from kube.errors import ApiError, KubeError, NotFound, TooManyRequests, Unauthorized
from kube.objects import ObjectReference

_log = structlog.get_logger(__name__)

EventType = Literal["Normal", "Warning"]

#: Different Events that may wait for the API server; more are dropped, and that is logged.
_MAX_WAITING = 512
#: Different Events that we remember having written, so that a repetition is counted.
_MAX_WRITTEN = 4096
#: Different messages of one reason about one object that become Events of their own; client-go's
#: correlator combines the eleventh and all after it as well.
_MAX_SIMILAR = 10
_COMBINED = "(combined from similar events): "
#: Objects and reasons for which that is remembered.
_MAX_KINDS = 4096
#: Writes per second in the long run, and how many may go at once.
_RATE = 2.0
_BURST = 25
#: Seconds between looks at what waits; what repeats faster is written once, with its count.
_TICK = 0.5
#: What events.k8s.io allows (apis/core/validation/events.go), counted in characters here.
_MAX_MESSAGE = 1024
_MAX_REASON = 128
#: Events about objects without a namespace live here (client-go's tools/record).
_CLUSTER_SCOPED = "default"


class _Key(NamedTuple):
    """What makes two Events the same one."""

    regarding: ObjectReference
    type: EventType
    reason: str
    message: str


@dataclass(slots=True)
class _Occurrences:
    """How often, and what was said last: more than the key tells where Events are combined."""

    count: int
    first: datetime
    last: datetime
    message: str


@dataclass(slots=True)
class _Written:
    name: str
    count: int


class TokenBucket:
    """Allows `burst` at once and `rate` per second in the long run; the caller brings the time."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled = float("-inf")

    def take(self, *, now: float) -> bool:
        """Take one token if there is one; `now` is monotonic seconds."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class EventRecorder:
    """Takes Events from any thread at once; `run` writes them in the order in which they came.

    The same Event about the same object raises the count of the one already written, also when it
    happened many times while the API server was away; so do messages of the same reason about it
    that are ever new, from the eleventh on. Without `run` nothing is written.
    """

    def __init__(self, client: Client, *, component: str, instance: str) -> None:
        """`component` is who reports, such as `gpudetour-extender`; `instance` the pod's name."""
        self._client = client
        self._component = component
        self._instance = instance
        self._lock = threading.Lock()  # guards the next three
        self._waiting: OrderedDict[_Key, _Occurrences] = OrderedDict()
        self._dropped = 0
        self._messages: OrderedDict[tuple[ObjectReference, str, str], set[str]] = OrderedDict()
        self._written: OrderedDict[_Key, _Written] = OrderedDict()
        self._bucket = TokenBucket(rate=_RATE, burst=_BURST)
        self._backoff = Backoff()

    def event(
        self,
        regarding: ObjectReference,
        *,
        type: EventType,  # noqa: A002 - the field's name
        reason: str,
        message: str,
    ) -> None:
        """Report that something happened to an object; never waits, never raises.

        `reason` is a CamelCase word, `message` a sentence for people; long ones are cut.
        """
        now = datetime.now(UTC)
        with self._lock:
            key, text = self._key(regarding, type, reason[:_MAX_REASON], message)
            if (waiting := self._waiting.get(key)) is not None:
                waiting.count += 1
                waiting.last = now
                waiting.message = text
            elif len(self._waiting) < _MAX_WAITING:
                self._waiting[key] = _Occurrences(count=1, first=now, last=now, message=text)
            else:
                self._dropped += 1

    def _key(
        self, regarding: ObjectReference, kind: EventType, reason: str, message: str
    ) -> tuple[_Key, str]:
        """Return under which Event a message is counted, and how it reads there."""
        cut = message[:_MAX_MESSAGE]
        group = (regarding, kind, reason)
        known = self._messages.setdefault(group, set())
        self._messages.move_to_end(group)
        if len(self._messages) > _MAX_KINDS:
            self._messages.popitem(last=False)
        if cut not in known and len(known) >= _MAX_SIMILAR:
            return _Key(regarding, kind, reason, _COMBINED), f"{_COMBINED}{message}"[:_MAX_MESSAGE]
        known.add(cut)
        return _Key(regarding, kind, reason, cut), cut

    def run(self, stop: threading.Event) -> None:
        """Write Events until `stop` is set, and then, without insisting, those still waiting."""
        delay = _TICK
        while not stop.wait(delay):
            delay = self._flush()
        self._flush()

    def _flush(self) -> float:
        """Write what waits and is allowed; return the seconds until it makes sense to go on."""
        while (occurred := self._next()) is not None:
            key, occurrences = occurred
            try:
                self._write(key, occurrences)
            except KubeError as error:
                if _for_good(error):
                    _log.warning("event refused", reason=key.reason, error=str(error))
                    continue
                self._put_back(key, occurrences)
                asked = error.retry_after if isinstance(error, ApiError) else None
                return self._backoff.next() + (asked or 0.0)
            self._backoff.reset()
        return _TICK

    def _next(self) -> tuple[_Key, _Occurrences] | None:
        with self._lock:
            if self._dropped:
                _log.warning("too many events at once", dropped=self._dropped)
                self._dropped = 0
            if not self._waiting or not self._bucket.take(now=time.monotonic()):
                return None
            return self._waiting.popitem(last=False)

    def _put_back(self, key: _Key, occurrences: _Occurrences) -> None:
        with self._lock:
            if (since := self._waiting.get(key)) is not None:
                occurrences.count += since.count
                occurrences.last = since.last
                occurrences.message = since.message
            self._waiting[key] = occurrences
            self._waiting.move_to_end(key, last=False)

    def _write(self, key: _Key, occurrences: _Occurrences) -> None:
        collection = f"/api/v1/namespaces/{key.regarding.namespace or _CLUSTER_SCOPED}/events"
        if (written := self._written.get(key)) is not None:
            count = written.count + occurrences.count
            change = {
                "count": count,
                "lastTimestamp": timestamps.time(occurrences.last),
                "message": occurrences.message,
            }
            try:
                self._client.patch(f"{collection}/{written.name}", change, content_type=MERGE_PATCH)
            except NotFound:
                del self._written[key]  # the API server forgets Events after an hour
            else:
                written.count = count
                self._written.move_to_end(key)
                return
        body = self._body(key, occurrences)
        self._client.create(collection, body)
        self._written[key] = _Written(name=body["metadata"]["name"], count=occurrences.count)
        if len(self._written) > _MAX_WRITTEN:
            self._written.popitem(last=False)

    def _body(self, key: _Key, occurrences: _Occurrences) -> dict[str, Any]:
        # 253 characters are allowed in a name; 17 are ours.
        name = f"{key.regarding.name[:236].rstrip('.-')}.{secrets.token_hex(8)}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": name,
                "namespace": key.regarding.namespace or _CLUSTER_SCOPED,
            },
            "involvedObject": key.regarding,
            "type": key.type,
            "reason": key.reason,
            "message": occurrences.message,
            "count": occurrences.count,
            "firstTimestamp": timestamps.time(occurrences.first),
            "lastTimestamp": timestamps.time(occurrences.last),
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def _for_good(error: KubeError) -> bool:
    """Tell whether trying again would be refused again."""
    if not isinstance(error, ApiError) or isinstance(error, TooManyRequests | Unauthorized):
        return False
    return error.status < 500
