"""Containers that are added to a running pod (`kubectl debug`): UPDATE of pods/ephemeralcontainers.

The request holds the whole pod, but only its new ephemeral containers can be changed: the API
server drops a change of anything else without a word, and refuses one of those that were there
(seen with kube-apiserver 1.34.2). New ones may stand before the old ones.
"""

from __future__ import annotations

from collections.abc import Collection

from webhook.containers import all_with_devices
from webhook.shape import Container, Raw, Spec


def added(spec: Spec, before: Spec) -> list[Container]:
    """Return the ephemeral containers that the pod did not have before; their names are unique."""
    present = {container.name for container in before.ephemeral_containers or ()}
    return [one for one in spec.ephemeral_containers or () if one.name not in present]


def closed(pod: Raw, names: Collection[str]) -> tuple[Raw, list[str]]:
    """Return the pod with no device in the ephemeral containers of these names, and warnings."""
    warnings: list[str] = []
    entries = []
    for container in pod["spec"]["ephemeralContainers"]:
        if container["name"] in names:
            (container,), more = all_with_devices([container], {})
            warnings += more
        entries.append(container)
    return {**pod, "spec": {**pod["spec"], "ephemeralContainers": entries}}, warnings
