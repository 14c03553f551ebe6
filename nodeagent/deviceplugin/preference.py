"""Which of the devices that kubelet has left it should give out (GetPreferredAllocation). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gpus.model import DeviceId
from gpus.topology import best_set
from nodeagent.deviceplugin.devices import Offer, device_of, is_replica


def preferred(
    available: Sequence[str], *, must_include: Sequence[str], size: int, offer: Offer
) -> tuple[str, ...]:
    """Choose `size` of `available`, those in `must_include` among them.

    Of whole devices the best connected set; of replicas those of the GPUs that are used least, or
    most where the offer packs them (k8s-device-plugin internal/rm/allocate.go). Raises `ValueError`
    when there is no such set.
    """
    if any(map(is_replica, available)):
        return _of_replicas(available, must_include=must_include, size=size, offer=offer)
    return best_set(
        [DeviceId(device) for device in available],
        size=size,
        inventory=offer.inventory,
        must_include=[DeviceId(device) for device in must_include],
    )


def _of_replicas(
    available: Sequence[str], *, must_include: Sequence[str], size: int, offer: Offer
) -> tuple[str, ...]:
    position = {device.id: at for at, device in enumerate(offer.devices)}
    free = sorted(set(available), key=lambda id_: (position.get(DeviceId(id_), len(position)), id_))
    chosen = list(dict.fromkeys(must_include))
    if not len(chosen) <= size <= len(free) or not set(chosen) <= set(free):
        raise ValueError(
            f"cannot choose {size} of {len(free)} replicas with {len(chosen)} prescribed"
        )
    # Replicas of one device are alike, so choosing is by device, each of which gives its first.
    left: dict[DeviceId, list[str]] = {}
    for replica in (each for each in reversed(free) if each not in set(chosen)):
        left.setdefault(device_of(replica), []).append(replica)
    used = Counter(device_of(device.id) for device in offer.devices)
    used.subtract({device: len(replicas) for device, replicas in left.items()})
    order = [device for device in dict.fromkeys(map(device_of, free)) if device in left]
    while len(chosen) < size:
        open_ = [device for device in order if left[device]]
        device = (max if offer.packed else min)(open_, key=used.__getitem__)
        chosen.append(left[device].pop())
        used[device] += 1
    return tuple(chosen)
