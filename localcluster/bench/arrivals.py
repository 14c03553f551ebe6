"""When pods come to have a node, as a watch shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from kube.client import Client
from kube.connection import connect
from kube.objects import Pod
from kube.reflector import Event, Reflector

#: Seconds without a single Binding after which nothing more is expected.
_PATIENCE = 60.0


class Stalled(Exception):
    """Pods stay without a node; the text says how many."""


class Arrivals:
    """Notes the moment at which each pod with a label is seen bound; a context manager."""

    def __init__(self, kubeconfig: Path, *, selector: str) -> None:
        self._client = Client(connect(str(kubeconfig)))
        self._reflector = Reflector(
            self._client,
            "/api/v1/pods",
            type=Pod,
            on_event=self._seen,
            params={"fieldSelector": "spec.nodeName!=", "labelSelector": selector},
        )
        self._changed = threading.Condition()  # guards the next one
        self._moments: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._reflector.run, args=(self._stop,), daemon=True, name="arrivals"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._reflector.synced.wait(_PATIENCE):
            raise Stalled("the API server does not list pods")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._reflector.close()
        self._thread.join()
        self._client.close()

    def wait_for(self, count: int, *, tell: Callable[[str], None]) -> None:
        """Return when that many pods are bound; `tell` gets the state each second."""
        last, patience = -1, 0.0
        while True:
            with self._changed:
                done = self._changed.wait_for(lambda: len(self._moments) >= count, timeout=1.0)
                seen = len(self._moments)
            tell(f"{seen} of {count} bound")
            if done:
                return
            now = time.monotonic()
            if seen != last:
                last, patience = seen, now + _PATIENCE
            if now > patience:
                raise Stalled(f"only {seen} of {count} pods were bound, none in {_PATIENCE:.0f} s")

    def rate(self) -> float:
        """Pods per second from the first Binding to the last."""
        with self._changed:
            moments = sorted(self._moments.values())
        return (len(moments) - 1) / (moments[-1] - moments[0])

    def _seen(self, event: Event[Pod]) -> None:
        now = time.monotonic()
        with self._changed:
            self._moments.setdefault(event.object.metadata.uid, now)
            self._changed.notify_all()
