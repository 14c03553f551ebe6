"""What a leader before us may still have on its way to the API server.

The fence judges a Binding when it comes in. One that passed it just before the Lease changed hands
can be stored long after, for a validating webhook of somebody else may hold it. On the annotation
path its ConfigMap was there before it and tells what it would give. So the devices of a pod that
is not bound and has a ConfigMap stay reserved until the Binding is seen, or the janitor finds that
none can come any more. Where kubelet chooses the devices, kubelet settles it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from extender.binding.handover import ConfigMap, owner_of
from gpus.annotations import (
    ASSIGNED,
    ASSIGNED_NODE,
    GPU_SELECTOR,
    AnnotationError,
    decode_assigned,
)
from gpus.model import Assignment, NodeName, PodUid
from kube.client import Client
from service.logs import ERROR

_CONFIG_MAPS = "/api/v1/configmaps"
_OURS = {"labelSelector": GPU_SELECTOR}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What a ConfigMap tells: which devices of which node its pod was about to get."""

    node: NodeName
    assignment: Assignment


def handed_over(client: Client) -> Mapping[PodUid, HandedOver]:
    """Return what all device ConfigMaps tell, by pod; call it when the fence is in force.

    Raises `KubeError`. A ConfigMap that cannot be read is logged: only extenders can write them.
    """
    found: dict[PodUid, HandedOver] = {}
    for config_map in client.list_all(_CONFIG_MAPS, type=ConfigMap, params=_OURS).items:
        meta, uid = config_map.metadata, owner_of(config_map)
        texts = meta.annotations or {}
        node, assigned = texts.get(ASSIGNED_NODE), texts.get(ASSIGNED)
        if uid is None or node is None or assigned is None:
            continue
        try:
            assignment = decode_assigned(assigned)
        except AnnotationError as error:
            log.warning("a device list cannot be read", name=meta.name, **{ERROR: str(error)})
            continue
        found[uid] = HandedOver(node=NodeName(node), assignment=assignment)
    return found
