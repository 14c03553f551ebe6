"""Whether dynamic resource allocation (DRA) serves this node's GPUs: then our parts stand aside.

Two systems that give out the same GPUs would give one to two pods. DRA serves them where a
DeviceClass stands for `nvidia.com/gpu` (KEP-5004), or where NVIDIA's DRA driver offers the node's
GPUs. API servers without DRA, or without the right to look, count as having none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog

from gpus.model import GPU_RESOURCE
from kube.client import Client
from kube.errors import ApiError, Forbidden, KubeError, NotFound
from kube.objects import ObjectMeta, Struct
from kube.reflector import Reflector
from kube.watch import Event, EventKind
from service.logs import ERROR

GROUP = "/apis/resource.k8s.io"
DRIVER = "gpu.nvidia.com"
#: Those whose objects have the fields below, best first.
_VERSIONS = ("v1", "v1beta2", "v1beta1", "v1alpha3")
#: Seconds between looks at which versions the API server serves, and after one that failed.
_PAUSE = 300.0
_RETRY = 15.0
_JOIN = 10.0

log = structlog.get_logger()


class DeviceClassSpec(Struct, frozen=True):
    extended_resource_name: str | None = None


class DeviceClass(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: DeviceClassSpec = DeviceClassSpec()


class ResourceSliceSpec(Struct, frozen=True):
    driver: str = ""
    node_name: str | None = None


class ResourceSlice(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ResourceSliceSpec = ResourceSliceSpec()


class DraWatch:
    """Follows DeviceClasses and the node's ResourceSlices; questions may come from any thread."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        *,
        on_change: Callable[[], None],
        pause: float = _PAUSE,
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._on_change = on_change
        self._pause = pause
        self._lock = threading.Lock()  # guards the next two
        self._classes: dict[str, DeviceClass] = {}
        self._slices: dict[str, ResourceSlice] = {}
        self._followers: tuple[Reflector[Any], ...] = ()
        self._threads: list[threading.Thread] = []
        self._version: str | None = None
        self._complaint = ""
        self._looked = threading.Event()

    def known(self) -> bool:
        """Tell whether the API server has been asked once, whatever it said."""
        return self._looked.is_set() and all(each.synced.is_set() for each in self._followers)

    def served(self) -> str:
        """Return how DRA serves this node's GPUs, in words; empty where it does not."""
        with self._lock:
            classes = sorted(
                name
                for name, each in self._classes.items()
                if each.spec.extended_resource_name == GPU_RESOURCE
            )
            slices = any(
                each.spec.driver == DRIVER and each.spec.node_name == self._node_name
                for each in self._slices.values()
            )
        if slices:
            return f"ResourceSlices of {DRIVER} offer the GPUs of this node (DRA)"
        if classes:
            return f"the DeviceClass {classes[0]} stands for {GPU_RESOURCE} (DRA)"
        return ""

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        try:
            while not stop.is_set():
                stop.wait(self._pause if self._look(stop) else min(self._pause, _RETRY))
                if not (stop.is_set() or all(thread.is_alive() for thread in self._threads)):
                    raise RuntimeError("a watch of DRA's objects ended by itself")
        finally:
            self._leave()

    def _look(self, stop: threading.Event) -> bool:
        """Follow the version that the API server serves now; returns whether it told which."""
        try:
            version = self._served_version()
            if version is not None and version != self._version:
                self._may_list(version)
        except KubeError as error:
            if str(error) != self._complaint:
                log.warning("cannot tell whether DRA serves GPUs", **{ERROR: str(error)})
            self._complaint = str(error)
            if isinstance(error, ApiError):  # it answered: to wait for another answer helps nobody
                self._looked.set()
            return False
        self._complaint = ""
        if version != self._version:
            self._leave()
            self._follow(version, stop)
        self._looked.set()
        self._on_change()
        return True

    def _served_version(self) -> str | None:
        try:
            group = self._client.get(GROUP)
        except NotFound:
            return None
        listed = group.get("versions") if isinstance(group, dict) else None
        served = {each.get("version") for each in listed or () if isinstance(each, dict)}
        return next((version for version in _VERSIONS if version in served), None)

    def _may_list(self, version: str) -> None:
        """Raise `KubeError` where rights are missing: a reflector would ask again for ever."""
        for path, params in self._collections(version):
            try:
                self._client.get(path, params={**params, "limit": "1"})
            except Forbidden as error:
                raise Forbidden(
                    error.status,
                    reason=error.reason,
                    message=f"{error.message}; apply the ClusterRole of this release",
                ) from error

    def _collections(self, version: str) -> tuple[tuple[str, dict[str, str]], ...]:
        selector = {"fieldSelector": f"spec.nodeName={self._node_name}"}
        return (f"{GROUP}/{version}/deviceclasses", {}), (
            f"{GROUP}/{version}/resourceslices",
            selector,
        )

    def _follow(self, version: str | None, stop: threading.Event) -> None:
        self._version = version
        if version is None:
            return
        (classes, _), (slices, of_node) = self._collections(version)
        followers: tuple[Reflector[Any], ...] = (
            Reflector(self._client, classes, type=DeviceClass, on_event=self._on_class),
            Reflector(
                self._client, slices, type=ResourceSlice, on_event=self._on_slice, params=of_node
            ),
        )
        self._followers = followers
        self._threads = [
            threading.Thread(target=each.run, args=(stop,), name="dra", daemon=True)
            for each in followers
        ]
        for thread in self._threads:
            thread.start()

    def _leave(self) -> None:
        for follower in self._followers:
            follower.close()
        for thread in self._threads:
            thread.join(_JOIN)
        self._followers, self._threads = (), []
        with self._lock:
            self._classes.clear()
            self._slices.clear()

    def _on_class(self, event: Event[DeviceClass]) -> None:
        self._fold(self._classes, event)

    def _on_slice(self, event: Event[ResourceSlice]) -> None:
        self._fold(self._slices, event)

    def _fold(self, known: dict[str, Any], event: Event[Any]) -> None:
        before = self.served()
        with self._lock:
            if event.kind is EventKind.DELETED:
                known.pop(event.object.metadata.name, None)
            else:
                known[event.object.metadata.name] = event.object
        if self.served() != before:
            self._on_change()
