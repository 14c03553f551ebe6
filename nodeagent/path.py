"""By which path this node serves GPUs: one pure function from what was observed to what to do.

Observing is `nodeagent.observer`'s work, acting and publishing are the agent's. The rules rest on
how kubelet's device manager behaves (pkg/kubelet/cm/devicemanager, seen on 1.34.2):
- A resource that a plugin registered stays in kubelet's memory for 5 minutes after the plugin
  stopped; meanwhile kubelet reports it in node status and refuses pods that ask for it.
- Pods that ask for the resource, but hold no device of it, are killed at a kubelet restart if the
  resource was registered since they started. Hence plugin and annotation pods never share a node.
- While a pod holds devices of a plugin that is gone, kubelet refuses new pods that ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from gpus.annotations import PATH_WISH_LABEL
from gpus.model import GPU_RESOURCE, Path

#: Seconds from publishing that nothing more is placed by one path until the other may begin.
#: Longer than a Binding that the extender had begun can take.
HANDOVER = 5.0


class Cause(StrEnum):
    """Why the path is what it is, in one word; the reason of the node condition."""

    OTHER_PLUGIN = "OtherDevicePlugin"
    OWN_PLUGIN = "OwnDevicePlugin"
    ANNOTATIONS = "Annotations"
    REGISTERING = "Registering"
    SETTLING = "Settling"
    DRAINING = "Draining"
    NO_GPU = "NoGPU"
    DRA = "DynamicResourceAllocation"
    NO_HANDOVER = "NoHandover"


class OwnPlugin(StrEnum):
    """How far our own device plugin has come with kubelet."""

    IDLE = "idle"
    STARTING = "starting"
    SERVING = "serving"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything that the decision depends on; counts are of live pods on this node."""

    #: Devices that the inventory can give out, healthy or not, and why there are none.
    devices: int
    devices_missing: str = ""
    #: Whether kubelet offers device plugin registration; a restart of kubelet does not count.
    kubelet: bool = True
    #: False with --plugin=never.
    plugin_allowed: bool = True
    #: The node label by which an admin asks for the annotation path.
    annotation_asked: bool = False
    #: A plugin other than ours has devices registered with kubelet, and answers.
    foreign: bool = False
    #: How dynamic resource allocation serves the GPUs, in words; empty where it does not.
    dra: str = ""
    own: OwnPlugin = OwnPlugin.IDLE
    own_error: str = ""
    #: Pods whose `assigned` names devices.
    annotation_pods: int = 0
    #: Other pods that ask for GPUs; kubelet may not have admitted them yet.
    plugin_pods: int = 0
    #: Pods to which kubelet itself gave devices.
    holders: int = 0
    #: The resource in node status; None where the key is absent.
    capacity: int | None = None
    #: Kubelet's device manager still has the resource in its memory.
    remembered: bool = False
    #: What is on the Node now, and for how many seconds it has not been these paths.
    published: Path | None = None
    since_annotation: float = inf
    since_plugin: float = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The path to publish, and what to do about it."""

    path: Path
    cause: Cause
    reason: str
    #: Our own plugin shall serve kubelet.
    register: bool = False
    #: The resource shall be removed from node status: kubelet admits nobody against a zero, and
    #: against any other number without giving out a device.
    remove_stale: bool = False


def decide(o: Observation) -> Decision:
    """Return the path of this node; the table of cases is tests/nodeagent/test_path.py."""
    if o.foreign:
        return _beside_foreign(o)
    if o.devices and o.dra:
        return _beside_dra(o)
    if not o.devices:
        return Decision(
            path=Path.SETTLING,
            cause=Cause.NO_GPU,
            reason=f"no GPU to serve: {o.devices_missing or 'none found'}",
            register=o.own is OwnPlugin.SERVING,
        )
    why = _why_annotation(o)
    return _plugin(o) if why is None else _annotation(o, why)


def _beside_foreign(o: Observation) -> Decision:
    if o.annotation_pods:
        return _draining(
            f"another device plugin serves {GPU_RESOURCE} again while "
            f"{_pods(o.annotation_pods)} of the annotation path still run"
        )
    reason = f"{GPU_RESOURCE} is served by another device plugin"
    if o.dra:
        reason += f"; remove it or DRA, which would give out the same GPUs: {o.dra}"
    if o.annotation_asked:
        reason += f"; remove it first for {PATH_WISH_LABEL}=annotation to take effect"
    return Decision(path=Path.PLUGIN, cause=Cause.OTHER_PLUGIN, reason=reason)


def _beside_dra(o: Observation) -> Decision:
    """Leave the node to DRA once no pod needs us: both together would give a GPU out twice."""
    why = f"left to dynamic resource allocation: {o.dra}"
    if o.annotation_pods:
        return _draining(
            f"{_pods(o.annotation_pods)} of the annotation path still run; {why}",
            register=o.own is OwnPlugin.SERVING and _plugin_pods(o) > 0,
        )
    if decision := _leave_plugin(o, why):
        return decision
    return Decision(
        path=Path.SETTLING,
        cause=Cause.DRA,
        reason=why,
        # A zero that nobody serves makes kubelet refuse the pods that DRA placed.
        remove_stale=not (o.holders or o.remembered or o.capacity is None),
    )


def _why_annotation(o: Observation) -> str | None:
    """Return what speaks against our own plugin, or None."""
    if not o.plugin_allowed:
        return "the agent was told not to serve a device plugin (--plugin=never)"
    if o.annotation_asked:
        return f"the node label {PATH_WISH_LABEL}=annotation asks for it"
    if not o.kubelet:
        return "kubelet offers no device plugin socket here"
    if o.own is OwnPlugin.REFUSED:
        return f"kubelet refuses the device plugin: {o.own_error}"
    return None


def _plugin(o: Observation) -> Decision:
    serving = o.own is OwnPlugin.SERVING
    if o.annotation_pods:
        # Both at once only if a pod was bound while we registered: stop, unless pods need us.
        return _draining(
            f"the device plugin waits for {_pods(o.annotation_pods)} of the annotation path",
            register=serving and _plugin_pods(o) > 0,
        )
    if serving:
        return Decision(
            path=Path.PLUGIN,
            cause=Cause.OWN_PLUGIN,
            reason=f"{GPU_RESOURCE} is served by gpudetour's device plugin",
            register=True,
        )
    if o.published is Path.ANNOTATION or o.since_annotation < HANDOVER:
        return _draining("the device plugin waits for placements of the annotation path under way")
    reason = "registering the device plugin with kubelet"
    if o.own_error:
        reason += f": {o.own_error}"
    return Decision(path=Path.SETTLING, cause=Cause.REGISTERING, reason=reason, register=True)


def _annotation(o: Observation, why: str) -> Decision:
    usable = o.plugin_allowed and o.kubelet and o.own is not OwnPlugin.REFUSED
    if usable and (decision := _leave_plugin(o, why)):
        return decision
    if o.holders:
        return _settling(
            f"{_pods(o.holders)} still hold devices of a device plugin that is gone, and kubelet "
            "would refuse new ones"
        )
    if o.remembered:
        return _settling(
            "kubelet remembers a device plugin that is gone, for 5 minutes after it stopped"
        )
    if o.capacity is not None:
        return Decision(
            path=Path.SETTLING,
            cause=Cause.SETTLING,
            reason=f"removing {GPU_RESOURCE}={o.capacity} from node status: no device plugin serves"
            " it any more",
            remove_stale=True,
        )
    return Decision(path=Path.ANNOTATION, cause=Cause.ANNOTATIONS, reason=why)


def _leave_plugin(o: Observation, why: str) -> Decision | None:
    """Serve on for the pods that hold devices, place nothing new, and withdraw when they ended.

    Running pods need the plugin: kubelet restarts a container only if its devices are healthy.
    """
    active = o.own in (OwnPlugin.SERVING, OwnPlugin.STARTING)
    served_before = o.published in (Path.PLUGIN, Path.DRAINING) and o.holders > 0
    if not (active or served_before):
        return None
    if pods := _plugin_pods(o):
        return _draining(
            f"{_pods(pods)} still hold GPUs of the device plugin; {why}", register=True
        )
    if o.published is Path.PLUGIN or o.since_plugin < HANDOVER:
        return _draining(
            f"waiting for placements under way before the device plugin leaves; {why}",
            register=True,
        )
    return _settling(f"the device plugin leaves kubelet; {why}")


def with_handover(decision: Decision, *, trouble: str, broken: str) -> Decision:
    """Return the decision with what hinders devices on their way into containers."""
    if not decision.register or not (trouble or broken):
        return decision
    if broken and decision.path is not Path.DRAINING:
        return replace(decision, path=Path.SETTLING, cause=Cause.NO_HANDOVER, reason=broken)
    return replace(decision, reason=f"{decision.reason}; {broken or trouble}")


def _settling(reason: str) -> Decision:
    return Decision(path=Path.SETTLING, cause=Cause.SETTLING, reason=reason)


def _draining(reason: str, *, register: bool = False) -> Decision:
    return Decision(path=Path.DRAINING, cause=Cause.DRAINING, reason=reason, register=register)


def _plugin_pods(o: Observation) -> int:
    return max(o.holders, o.plugin_pods)


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"
