"""The GPU pods of this node, folded from a watch. What kubelet gave them is `podresources`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpus.annotations import ASSIGNED, AnnotationError, decode_assigned
from gpus.model import DeviceId, PodUid
from kube.objects import Pod
from kube.watch import Event, EventKind
from nodeagent.podresources.client import Holder

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCounts:
    """Live GPU pods by the path on which they came."""

    annotation: int = 0
    plugin: int = 0


class NodePods:
    """The live pods with our label; `on_event` and the questions may come from any thread."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._pods: dict[PodUid, Pod] = {}

    def on_event(self, event: Event[Pod]) -> None:
        """Take one change in."""
        uid = PodUid(event.object.metadata.uid)
        gone = event.kind is EventKind.DELETED or event.object.status.phase in _ENDED
        with self._lock:
            if gone:
                self._pods.pop(uid, None)
            else:
                self._pods[uid] = event.object
        self._on_change()

    def counts(self) -> PodCounts:
        """Count the live pods."""
        with self._lock:
            pods = list(self._pods.values())
        annotation = sum(_on_annotation_path(pod) for pod in pods)
        return PodCounts(annotation=annotation, plugin=len(pods) - annotation)

    def assigned(self) -> frozenset[DeviceId]:
        """Return the devices that the extender gave to live pods."""
        with self._lock:
            pods = list(self._pods.values())
        return frozenset(device for pod in pods for device in _assigned(pod))

    def given(self) -> frozenset[tuple[DeviceId, Holder]]:
        """Return those devices with the containers to which they were given."""
        with self._lock:
            pods = list(self._pods.values())
        return frozenset(
            (
                device,
                Holder(
                    namespace=pod.metadata.namespace, pod=pod.metadata.name, container=container
                ),
            )
            for pod in pods
            for container, devices in _containers(pod).items()
            for device in devices
        )

    def uid_of(self, namespace: str, name: str) -> PodUid | None:
        """Return the UID of a live pod by its name."""
        with self._lock:
            for uid, pod in self._pods.items():
                if (pod.metadata.namespace, pod.metadata.name) == (namespace, name):
                    return uid
        return None


def _assigned(pod: Pod) -> frozenset[DeviceId]:
    return frozenset(device for devices in _containers(pod).values() for device in devices)


def _containers(pod: Pod) -> Mapping[str, tuple[DeviceId, ...]]:
    try:
        return decode_assigned((pod.metadata.annotations or {}).get(ASSIGNED, "")).containers
    except AnnotationError:
        return {}


def _on_annotation_path(pod: Pod) -> bool:
    """Tell whether a pod got its devices by annotation; what cannot be read counts as if it had.

    A plugin that registers beside such a pod would get it killed, so doubt speaks against that.
    """
    text = (pod.metadata.annotations or {}).get(ASSIGNED)
    if text is None:
        return False
    try:
        return bool(decode_assigned(text).containers)
    except AnnotationError:
        return True
