"""Names that mean nothing: a wish or request that nobody reads would be lost in silence.

Told when a pod is created only. Later the objects are taken as they are, because another release
may have written them.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from gpus.annotations import POD_ANNOTATIONS, PREFIX, WISHES
from gpus.model import GPU_MEMORY_RESOURCE, GPU_RESOURCE
from kube.objects import Pod

#: Comparing is slow, and nobody reads more; the rest are told without a suggestion.
_MOST_COMPARED = 20
_LONGEST = 63


def misspelt_annotations(pod: Pod) -> Iterator[str]:
    """Yield a fault for each annotation of a pod that has our prefix and no meaning."""
    unknown = {key for key in pod.metadata.annotations or {} if key.startswith(PREFIX)}
    for number, key in enumerate(sorted(unknown - POD_ANNOTATIONS)):
        instead = _nearest(key) if number < _MOST_COMPARED else None
        instead = instead or f"one of {', '.join(WISHES)}"
        yield f"annotation {key[:100]} is not known; write {instead}, or remove it"


def _nearest(key: str) -> str | None:
    """Return the wish that was probably meant."""
    known = {wish.removeprefix(PREFIX): wish for wish in WISHES}
    near = get_close_matches(key.removeprefix(PREFIX)[:_LONGEST], known, n=1)
    return known[near[0]] if near else None


def misplaced_wishes(pod: Pod) -> Iterator[str]:
    """Yield a fault for each wish that is written as a label, where nobody looks for it."""
    for key in sorted(pod.metadata.labels or {}):
        if key in WISHES:
            yield f"label {key} is not read; write it under metadata.annotations"


def misspelt_resources(pod: Pod) -> Iterator[str]:
    """Yield a fault for each request of a resource that has our prefix and that no node has."""
    for container, name in _requests(pod):
        if name.startswith(PREFIX) and name != GPU_MEMORY_RESOURCE:
            yield (
                f"container {container[:100]!r}, {name[:100]}: no node has it; "
                f"write {GPU_MEMORY_RESOURCE}"
            )


def doubtful_resources(pod: Pod) -> Iterator[str]:
    """Yield a warning for each request of a resource that is probably meant to be GPUs.

    No fault, because other device plugins name their resources as they like.
    """
    for container, name in _requests(pod):
        if name != GPU_RESOURCE and name.casefold() in (GPU_RESOURCE, f"{GPU_RESOURCE}s"):
            yield f"container {container[:100]!r}, {name}: did you mean {GPU_RESOURCE}?"


def _requests(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield the names of containers and of the resources that they ask for."""
    for container in (*(pod.spec.init_containers or ()), *(pod.spec.containers or ())):
        if resources := container.resources:
            for name in sorted({**(resources.requests or {}), **(resources.limits or {})}):
                yield container.name, name
