"""What a pod becomes: pod in, pod out, or every reason why not. No IO, no clock, no chance.

The pod that comes in is never changed; the one that goes out shares its untouched parts. Mutating
twice changes nothing more, because the API server may call again after other webhooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from gpus.annotations import GPU_LABEL
from gpus.demand import Demand, DemandError, demand_of
from gpus.misspelt import (
    doubtful_resources,
    misplaced_wishes,
    misspelt_annotations,
    misspelt_resources,
)
from kube.objects import Pod
from webhook import ephemeral, faults, serving
from webhook.containers import all_with_devices, devices_from
from webhook.forged import without_forged
from webhook.policy import NVIDIA, Policy
from webhook.shape import Container, Raw, ShapeError, Spec, check

#: Kubelet's image of a pod that it runs from a file (core/v1 MirrorPodAnnotationKey). A change
#: would not reach the node, a refusal would only hide the pod; and kubelet starts no pod that has
#: this annotation, whoever wrote it.
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutated:
    """The pod as it shall be stored, equal to what came in when nothing is to be changed."""

    pod: Raw
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The pod cannot be served as it is written; every fault is named."""

    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutator:
    """Applies one policy.

    `new_name` returns a fresh name for the ConfigMap of one pod; `runtime_classes` the handlers
    of the RuntimeClasses that exist now, by name.
    """

    policy: Policy
    new_name: Callable[[], str]
    runtime_classes: Callable[[], Mapping[str, str]]

    def mutate(self, pod: Raw) -> Mutated | Refused:
        """Return what a pod that asks for GPUs, or may reach them, becomes at its creation."""
        try:
            typed, spec = check(pod)
        except ShapeError as error:
            return Refused(faults=(str(error),))
        if _is_mirror(typed):
            return Mutated(pod=pod)
        demand, found = _demand(typed)
        if demand is not None or found:
            found += self._faults(typed, spec)
        elif not self._uses_nvidia(spec):
            return Mutated(pod=pod)
        if found:
            return Refused(faults=tuple(found))
        return _closed(pod, typed, spec) if demand is None else self._served(pod, demand)

    def close(self, pod: Raw) -> Mutated | Refused:
        """Return what any other pod becomes, where it may get NVIDIA's runtime by default.

        What asks for GPUs is left to `mutate`, and what cannot be read to the API server.
        """
        try:
            typed, spec = check(pod)
        except ShapeError:
            return Mutated(pod=pod)
        demand, found = _demand(typed)
        if demand is not None or found or not self._may_use_nvidia(typed, spec):
            return Mutated(pod=pod)
        return _closed(pod, typed, spec)

    def debug(self, pod: Raw, before: Raw, *, any_runtime: bool) -> Mutated | Refused:
        """Return what a running pod becomes to which ephemeral containers are added.

        `any_runtime`: they are closed off also where only the default runtime may be NVIDIA's, and
        what cannot be read is left to the API server, as in `close`.
        """
        try:
            (typed, spec), (_, past) = check(pod), check(before)
        except ShapeError as error:
            return Mutated(pod=pod) if any_runtime else Refused(faults=(str(error),))
        reaches_gpus = _holds_gpus(typed) or self._uses_nvidia(spec)
        if not reaches_gpus and not (any_runtime and self._may_use_nvidia(typed, spec)):
            return Mutated(pod=pod)
        new = ephemeral.added(spec, past)
        found = [fault for one in new for fault in faults.asked_while_running(one)]
        found += faults.smuggled_mounts(new)
        if found:
            return Refused(faults=tuple(found))
        if not new:
            return Mutated(pod=pod)
        changed, warnings = ephemeral.closed(pod, {one.name for one in new})
        return Mutated(pod=changed, warnings=tuple(warnings))

    def _faults(self, pod: Pod, spec: Spec) -> Iterator[str]:
        """Yield what is wrong with a pod that asks for GPUs, but not with how many."""
        yield from misspelt_annotations(pod)
        yield from misplaced_wishes(pod)
        yield from faults.misused_requests(spec)
        label = self.policy.selector_key, self.policy.selector_value
        yield from faults.misplaced(spec, label)
        yield from faults.smuggled_mounts(_started(spec))

    def _uses_nvidia(self, spec: Spec) -> bool:
        if faults.is_for_windows(spec):
            return False
        name = spec.runtime_class_name or ""
        handler = self.runtime_classes().get(name, "")
        return name.startswith(NVIDIA) or handler.startswith(NVIDIA)

    def _may_use_nvidia(self, pod: Pod, spec: Spec) -> bool:
        """Tell whether a pod can run with NVIDIA's runtime where that is the default one."""
        if _is_mirror(pod) or faults.is_for_windows(spec):
            return False
        # A class that we have not heard of yet may have any handler.
        return self._uses_nvidia(spec) or spec.runtime_class_name not in self.runtime_classes()

    def _served(self, pod: Raw, demand: Demand) -> Mutated:
        """Make a pod that asks for GPUs one that the scheduler can place and the runtime serve."""
        name = serving.config_map_of(pod) or self.new_name()
        metadata, warnings = serving.labelled(pod.get("metadata") or {}, name)
        spec = serving.placeable(pod["spec"], self.policy, self.runtime_classes())
        entries = {one.name: devices_from(name, one.name) for one in demand.containers}
        return _with_entries({**pod, "metadata": metadata, "spec": spec}, entries, warnings)


def _closed(pod: Raw, typed: Pod, spec: Spec) -> Mutated | Refused:
    """Show no GPU to a pod that may have NVIDIA's runtime but asked for none."""
    if found := tuple(faults.smuggled_mounts(_started(spec))):
        return Refused(faults=found)
    return _with_entries(pod, {}, list(doubtful_resources(typed)))


def _started(spec: Spec) -> list[Container]:
    """Return the containers that a pod has from its creation on."""
    return [*(spec.init_containers or ()), *spec.containers]


def _is_mirror(pod: Pod) -> bool:
    return _MIRROR in (pod.metadata.annotations or {})


def _holds_gpus(pod: Pod) -> bool:
    """Tell whether a pod that exists is, or may be, one with GPUs."""
    if GPU_LABEL in (pod.metadata.labels or {}):
        return True
    demand, found = _demand(pod)
    return demand is not None or bool(found)


def _demand(pod: Pod) -> tuple[Demand | None, list[str]]:
    """Return what a pod asks for, and every fault in how it asks."""
    found = list(misspelt_resources(pod))
    if pod.spec.node_name:
        # As if it had none: only of such a pod are the wishes read and judged.
        pod = replace(pod, spec=replace(pod.spec, node_name=""))
    try:
        return demand_of(pod), found
    except DemandError as error:
        return None, [*found, *error.faults]


def _with_entries(pod: Raw, entries: Mapping[str, Raw], warnings: list[str]) -> Mutated:
    """Set the entry of every container, `void` where there is none, and drop forged annotations."""
    spec = dict(pod["spec"])
    for field in ("initContainers", "containers"):
        if spec.get(field):
            spec[field], more = all_with_devices(spec[field], entries)
            warnings = [*warnings, *more]
    changed = {**pod, "spec": spec}
    metadata = pod.get("metadata") or {}
    annotations, removed = without_forged(metadata.get("annotations") or {})
    if removed:
        changed["metadata"] = {**metadata, "annotations": annotations}
    return Mutated(pod=changed, warnings=(*warnings, *removed))
