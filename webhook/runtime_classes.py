"""The RuntimeClasses that exist, kept current by a reflector."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

from kube.client import Client
from kube.objects import ObjectMeta, Struct
from kube.reflector import Event, EventKind, Reflector

PATH = "/apis/node.k8s.io/v1/runtimeclasses"


class RuntimeClass(Struct, frozen=True):
    """node.k8s.io/v1 RuntimeClass, of which the handler is what containerd knows."""

    metadata: ObjectMeta = ObjectMeta()
    handler: str = ""


class RuntimeClasses:
    """Handlers by name of RuntimeClass; readers get an immutable snapshot, one thread writes."""

    def __init__(self, client: Client) -> None:
        self._handlers: Mapping[str, str] = MappingProxyType({})
        self._reflector = Reflector(client, PATH, type=RuntimeClass, on_event=self.fold)

    def run(self, stop: threading.Event) -> None:
        """Follow the API server until `stop` is set."""
        self._reflector.run(stop)

    def close(self) -> None:
        """Wake `run` from a blocked read; set its `stop` first."""
        self._reflector.close()

    def snapshot(self) -> Mapping[str, str]:
        """Return what exists now, as far as we were told."""
        return self._handlers

    def not_ready(self) -> str | None:
        """Return why the snapshot cannot be used yet; a stale one can."""
        return None if self._reflector.synced.is_set() else "RuntimeClasses are not listed yet"

    def fold(self, event: Event[RuntimeClass]) -> None:
        """Take one change in."""
        handlers = dict(self._handlers)
        name = event.object.metadata.name
        if event.kind is EventKind.DELETED:
            handlers.pop(name, None)
        else:
            handlers[name] = event.object.handler
        self._handlers = MappingProxyType(handlers)
