"""What a pod becomes: pod in, pod out, or every reason why not. No IO, no clock, no chance.

The pod that comes in is never changed; the one that goes out shares its untouched parts. Mutating
twice changes nothing more, because the API server may call again after other webhooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from gpus.annotations import (
    ASSIGNED,
    DEVICES_CONFIG_MAP_NAME,
    DEVICES_FROM,
    GPU_LABEL,
    GPU_LABEL_VALUE,
)
from gpus.demand import Demand, DemandError, demand_of
from gpus.misspelt import misspelt_annotations, misspelt_resources
from kube.objects import Pod
from webhook import containers
from webhook.shape import Raw, ShapeError, check

#: RuntimeClass names and handlers that start so are NVIDIA's (nvidia, nvidia-cdi, nvidia-legacy).
_NVIDIA = "nvidia"
#: core/v1 DefaultSchedulerName, which the API server fills in before it asks us.
_DEFAULT_SCHEDULER = "default-scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an admin may choose about the pods that ask for GPUs."""

    runtime_class: str
    selector_key: str
    selector_value: str
    toleration_key: str
    #: The scheduler of pods that name none; empty: they stay with the default one.
    scheduler_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutated:
    """The pod as it shall be stored, the same object when nothing is to be changed."""

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
        """Return what becomes of a pod at its creation."""
        try:
            typed = check(pod)
        except ShapeError as error:
            return Refused(faults=(str(error),))
        demand, faults = _demand(typed)
        if demand is not None or faults:
            faults += [*misspelt_annotations(typed), *self._faults(pod)]
        if faults:
            return Refused(faults=tuple(faults))
        if demand is not None:
            return self._serve(pod, demand)
        if self._uses_nvidia(typed):
            return self._close(pod)
        return Mutated(pod=pod)

    def _faults(self, pod: Raw) -> Iterator[str]:
        """Yield what keeps a pod that asks for GPUs from being scheduled to where they are."""
        spec, policy = pod["spec"], self.policy
        if node := spec.get("nodeName"):
            yield (
                f"spec.nodeName is {node!r}, which skips the scheduler, and only the scheduler "
                "gives GPUs out: remove it and write "
                f"spec.nodeSelector {{kubernetes.io/hostname: {node}}} instead"
            )
        value = (spec.get("nodeSelector") or {}).get(policy.selector_key)
        if value not in (None, policy.selector_value):
            yield (
                f"spec.nodeSelector has {policy.selector_key}: {value!r}, but nodes with GPUs "
                f"have {policy.selector_value!r}: remove the entry"
            )

    def _uses_nvidia(self, pod: Pod) -> bool:
        name = pod.spec.runtime_class_name or ""
        handler = self.runtime_classes().get(name, "")
        return name.startswith(_NVIDIA) or handler.startswith(_NVIDIA)

    def _serve(self, pod: Raw, demand: Demand) -> Mutated:
        """Make a pod that asks for GPUs one that the scheduler can place and the runtime serve."""
        name = self._config_map(pod)
        entries = {
            asking.name: containers.devices_from(name, asking.name) for asking in demand.containers
        }
        metadata = dict(pod.get("metadata") or {})
        metadata["labels"] = {**(metadata.get("labels") or {}), GPU_LABEL: GPU_LABEL_VALUE}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), DEVICES_FROM: name}
        spec = {**pod["spec"], "nodeSelector": self._node_selector(pod["spec"])}
        spec["tolerations"] = self._tolerations(spec)
        if not spec.get("runtimeClassName") and self.policy.runtime_class in self.runtime_classes():
            spec["runtimeClassName"] = self.policy.runtime_class
        if self.policy.scheduler_name and _names_no_scheduler(spec):
            spec["schedulerName"] = self.policy.scheduler_name
        return _with_entries({**pod, "metadata": metadata, "spec": spec}, entries)

    def _close(self, pod: Raw) -> Mutated:
        """Show no GPU to a pod that has NVIDIA's runtime but asked for none."""
        return _with_entries(pod, {})

    def _config_map(self, pod: Raw) -> str:
        annotations = (pod.get("metadata") or {}).get("annotations") or {}
        present: str = annotations.get(DEVICES_FROM, "")
        return present if DEVICES_CONFIG_MAP_NAME.fullmatch(present) else self.new_name()

    def _node_selector(self, spec: Raw) -> dict[str, str]:
        selector = spec.get("nodeSelector") or {}
        return {**selector, self.policy.selector_key: self.policy.selector_value}

    def _tolerations(self, spec: Raw) -> list[Raw]:
        present = spec.get("tolerations") or []
        if any(_tolerates(toleration, self.policy.toleration_key) for toleration in present):
            return present
        # As the API server's own ExtendedResourceToleration plugin writes it.
        ours = {"key": self.policy.toleration_key, "operator": "Exists", "effect": "NoSchedule"}
        return [*present, ours]


def _demand(pod: Pod) -> tuple[Demand | None, list[str]]:
    """Return what a pod asks for, and every fault in how it asks."""
    faults = list(misspelt_resources(pod))
    try:
        # As if it had no node: only of such a pod are the wishes read and judged.
        return demand_of(replace(pod, spec=replace(pod.spec, node_name=""))), faults
    except DemandError as error:
        return None, [*faults, *error.faults]


def _with_entries(pod: Raw, entries: Mapping[str, Raw]) -> Mutated:
    """Set the entry of every container, `void` where there is none, and drop a forged assignment.

    Warns of everything of the user's that is overruled.
    """
    warnings: list[str] = []
    spec = dict(pod["spec"])
    for field in ("initContainers", "containers"):
        if not spec.get(field):
            continue
        changed = []
        for container in spec[field]:
            entry = entries.get(container["name"]) or containers.void()
            warnings += [
                f"container {container['name']!r}: env {variable} was overruled, "
                "devices are given by request only"
                for variable in containers.overruled(container, entry)
            ]
            changed.append(containers.with_devices(container, entry))
        spec[field] = changed
    pod = {**pod, "spec": spec}
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    if ASSIGNED in annotations:
        kept = {key: value for key, value in annotations.items() if key != ASSIGNED}
        pod["metadata"] = {**pod["metadata"], "annotations": kept}
        warnings.append(f"annotation {ASSIGNED} was removed: only the scheduler's extender sets it")
    return Mutated(pod=pod, warnings=tuple(warnings))


def _names_no_scheduler(spec: Raw) -> bool:
    """Tell whether the pod is free to be given a scheduler.

    Who wrote the default's name cannot be told from who wrote none, and wishes no other scheduler
    either; so nobody is overruled here, and there is nothing to warn of.
    """
    return spec.get("schedulerName") in (None, "", _DEFAULT_SCHEDULER)


def _tolerates(toleration: Raw, key: str) -> bool:
    """Tell whether every NoSchedule taint with that key is tolerated (core/v1 ToleratesTaint)."""
    if toleration.get("effect") not in (None, "", "NoSchedule"):
        return False
    return toleration.get("operator") == "Exists" and toleration.get("key") in (None, "", key)
