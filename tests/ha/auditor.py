"""Watches the pods of one namespace, reading nothing but the API; `books` says what is wrong."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from kube.client import Client, Stream
from kube.connection import connect
from kube.errors import Gone, KubeError
from tests.ha.books import Books, Hardware, Record, epoch_of

_DEVICES_FROM = "gpudetour.io/devices-from"
#: Seconds between attempts to reach an API server that is away.
_AGAIN = 0.05
#: Seconds of silence after which the watch is opened anew from where it was.
_IDLE = 30.0


class Auditor:
    """Follows the pods of a namespace from its start to its end; a context manager."""

    def __init__(self, kubeconfig: Path, namespace: str, hardware: Hardware) -> None:
        self._client = Client(connect(str(kubeconfig)))
        self._namespace = namespace
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._books = Books(hardware)
        self._version = ""
        #: How often the watch had to begin anew, blind to what happened in between.
        self.gaps = -1
        self._changed = threading.Condition()  # guards all of the above
        self._stream: Stream | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(lambda: self.gaps >= 0, timeout=30, what="a first listing")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stop.set()
            if self._stream is not None:
                self._stream.close()
        self._thread.join()
        self._client.close()

    @property
    def binds(self) -> int:
        """How many pods were seen bound."""
        return len(self._books.bound)

    @property
    def faults(self) -> list[str]:
        """What must never be, and was."""
        return list(self._books.faults)

    def bound_after(self, index: int) -> list[Record]:
        """The pods that were bound after the first `index` ones, in that order."""
        return self._books.bound[index:]

    def bound_since(self, moment: float) -> list[float]:
        """When pods were bound after a moment."""
        bound = self._books.bound
        return [record.bound for record in bound[bisect_right(bound, moment, key=_moment) :]]

    def bound_names(self) -> set[str]:
        """The names of all pods that were ever bound."""
        return {record.name for record in self._books.bound}

    def waiting(self) -> list[str]:
        """The names of pods that have no node yet."""
        with self._changed:
            living = (self._books.records[uid] for uid in self._books.living)
            return [record.name for record in living if not record.node]

    def living(self) -> int:
        """How many pods wait, or hold GPUs."""
        return len(self._books.living)

    def knows(self, uid: str) -> bool:
        """Tell whether a pod was ever seen."""
        return uid in self._books.records

    def wait(self, done: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Return when `done` holds after an event; AssertionError when time is up."""
        with self._changed:
            if not self._changed.wait_for(done, timeout):
                waiting = len(self.waiting())
                raise AssertionError(
                    f"{what}: not within {timeout:g} s; {waiting} of {self.living()} pods wait"
                )

    def next_bind(self, *, epoch: int, since: float, timeout: float) -> float:
        """Wait for the first Binding of a later epoch after a moment; return when it was seen."""
        later: list[Record] = []
        begin = bisect_right(self._books.bound, since, key=_moment)

        def done() -> bool:
            nonlocal begin
            later.extend(record for record in self.bound_after(begin) if record.epoch > epoch)
            begin = self.binds
            return bool(later)

        self.wait(done, timeout=timeout, what=f"a bind of an epoch after {epoch}")
        return later[0].bound

    def compare(self) -> list[str]:
        """Read all pods and ConfigMaps once more; return what contradicts the watch or itself."""
        listed = self._client.get(self._pods)["items"]
        maps = self._client.get(f"/api/v1/namespaces/{self._namespace}/configmaps")["items"]
        told = {item["metadata"]["name"]: item.get("data") or {} for item in maps}
        books = Books(self._books.hardware)
        for pod in sorted(listed, key=epoch_of):
            record = books.see(pod, gone=False, now=0.0)
            known = self._books.records.get(record.uid)
            if known is None or (known.node, known.assigned) != (record.node, record.assigned):
                books.faults.append(f"{record.name} is listed otherwise than watched")
            if record.devices and not record.over:
                name = pod["metadata"]["annotations"][_DEVICES_FROM]
                given = json.loads(record.assigned)["containers"]
                if told.get(name) != {key: ",".join(ids) for key, ids in given.items()}:
                    books.faults.append(f"{record.name} is told {told.get(name)}, not {given}")
        return books.faults

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except Gone:
                self._version = ""
            except KubeError:
                self._stop.wait(_AGAIN)

    def _list(self) -> None:
        listing = self._client.get(self._pods)
        with self._changed:
            self._books.relisted(listing["items"], now=time.monotonic())
            self._version = listing["metadata"]["resourceVersion"]
            self.gaps += 1
            self._changed.notify_all()

    def _watch(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": "600",
        }
        with closing(self._client.stream(self._pods, params=query, idle_timeout=_IDLE)) as stream:
            with self._changed:
                self._stream = stream
                if self._stop.is_set():
                    return
            for line in stream:
                self._line(msgspec.json.decode(line))

    def _line(self, event: Any) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            self._version = ""
            return
        with self._changed:
            self._version = item["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                self._books.see(item, gone=kind == "DELETED", now=time.monotonic())
                self._changed.notify_all()


def _moment(record: Record) -> float:
    return record.bound
