"""Prepares how devices reach containers: by CDI where the runtime reads it, else by variable."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from gpus.model import NodeInventory
from nodeagent.deviceplugin.allocation import DeviceList, Handover
from nodeagent.deviceplugin.cdi import CdiSpec
from nodeagent.deviceplugin.driver_files import Roots, control_nodes, nodes_of
from service.logs import ERROR

_NO_RUNTIME = "NVIDIA's container runtime, which reads NVIDIA_VISIBLE_DEVICES, is not set up here"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Which ways lead to a container of this node; `variable` is None where that is not known.

    `no_cdi` tells why the runtime would make nothing of CDI names, or is None. `forced` is the
    admin's choice, on which nothing else is tried.
    """

    no_cdi: str | None = None
    variable: bool | None = None
    forced: DeviceList | None = None


class Preparation:
    """Keeps the CDI spec true and says how devices are handed over; one thread uses it."""

    def __init__(self, cdi: CdiSpec, roots: Roots, *, pass_device_nodes: bool = False) -> None:
        self._cdi = cdi
        self._roots = roots
        self._pass_device_nodes = pass_device_nodes
        self._told = ""

    def prepare(self, inventory: NodeInventory, ways: Ways) -> Handover:
        """Describe the devices to the runtime, before kubelet can give them out."""
        handover = self._choose(inventory, ways)
        complaint = handover.broken or handover.trouble
        if complaint and complaint != self._told:
            log.warning("devices are not handed over as they should be", **{ERROR: complaint})
        self._told = complaint
        return handover

    def _choose(self, inventory: NodeInventory, ways: Ways) -> Handover:
        wanted = ways.forced or (DeviceList.ENV if ways.no_cdi else DeviceList.CDI)
        if wanted is DeviceList.ENV:
            if ways.forced is None and ways.variable is False:
                return Handover(device_list=DeviceList.ENV, broken=_no_way(ways.no_cdi or ""))
            return self._by_variable(inventory, trouble=_doubt(ways))
        try:
            if self._cdi.write(inventory.gpus):
                log.info("CDI spec written", path=str(self._cdi.path))
        except OSError as error:
            why = f"the CDI spec cannot be written ({error})"
            if ways.forced is not None:
                return Handover(device_list=DeviceList.CDI, broken=f"{why}, and --device-list=cdi")
            if ways.variable is False:
                return Handover(device_list=DeviceList.CDI, broken=_no_way(why))
            return self._by_variable(
                inventory, trouble=f"{why}; GPUs are handed over by NVIDIA_VISIBLE_DEVICES instead"
            )
        return Handover(
            device_list=DeviceList.CDI,
            cdi_names=self._cdi.names,
            variable=ways.forced is None and ways.variable is not False,
            trouble=_doubt(ways),
        )

    def _by_variable(self, inventory: NodeInventory, *, trouble: str = "") -> Handover:
        nodes = {}
        if self._pass_device_nodes:
            common = control_nodes(self._roots)
            for gpu in inventory.gpus:
                for device, own in nodes_of(self._roots, gpu).items():
                    nodes[device] = (*common, *own)
        return Handover(device_list=DeviceList.ENV, nodes=nodes, trouble=trouble)


def _doubt(ways: Ways) -> str:
    """Tell why the way that the admin chose may lead nowhere; it is taken all the same."""
    if ways.forced is DeviceList.ENV and ways.variable is False:
        return f"GPUs are handed over by variable, as was asked for, but {_NO_RUNTIME}"
    if ways.forced is DeviceList.CDI and ways.no_cdi:
        return f"GPUs are handed over by CDI, as was asked for, but {ways.no_cdi}"
    return ""


def _no_way(why: str) -> str:
    return f"no GPU can reach a container: {why}, and {_NO_RUNTIME}"
