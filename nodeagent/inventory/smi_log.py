"""Reads what `nvidia-smi -q -x` prints. Pure.

What a card does not have is printed as N/A, what failed in other words: both are absent here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from gpus.model import DeviceId, Gpu, Health, Source, Withheld
from nodeagent.inventory.choice import normal_address
from nodeagent.inventory.health import ECC_REASON, ROWS_REASON, heat_reason, recovery_reason
from nodeagent.inventory.source import InventoryError, Sighting, Survey
from nodeagent.inventory.standing import Verdict
from nodeagent.inventory.xids import HealthPolicy

_UUID = re.compile(r"GPU-[A-Za-z0-9-]{1,90}")
_VERSION = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,5}){1,3}")
_CAPABILITY = re.compile(r"(GPU-[A-Za-z0-9-]{1,90})\s*,\s*([0-9]{1,3})\.([0-9]{1,3})")
_MIB = 1 << 20

Capability = tuple[int, int]


def read_log(text: str, capabilities: Mapping[str, Capability], policy: HealthPolicy) -> Survey:
    """The GPUs of a log; `capabilities` are what the log leaves out, by UUID.

    Raises `InventoryError` for what is no log.
    """
    try:
        # S314: the driver's own program wrote it, and expat limits how far entities blow it up.
        log = ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError as error:
        raise InventoryError(
            f"nvidia-smi printed no log: {error}", advice="run `nvidia-smi -q` on the node"
        ) from error
    sightings: dict[DeviceId, Sighting] = {}
    withheld = []
    for index, element in enumerate(log.findall("gpu")):
        found = _gpu(element, index, capabilities, policy)
        if isinstance(found, Withheld):
            withheld.append(found)
        elif found.uuid in sightings:
            withheld.append(Withheld(bdf=found.bdf, reason="another GPU has the same UUID"))
        else:
            sightings[found.uuid] = Sighting(gpu=found, complete=False)
    return Survey(
        source=Source.NVIDIA_SMI,
        driver=_matching(_VERSION, log.findtext("driver_version")),
        cuda=_matching(_VERSION, log.findtext("cuda_version")),
        sightings=tuple(sightings.values()),
        withheld=tuple(withheld),
    )


def read_capabilities(text: str) -> dict[str, Capability]:
    """Compute capabilities by UUID, of `--query-gpu=uuid,compute_cap --format=csv,noheader`."""
    lines = (_CAPABILITY.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: (int(match[2]), int(match[3])) for match in lines if match}


def _gpu(
    element: ElementTree.Element,
    index: int,
    capabilities: Mapping[str, Capability],
    policy: HealthPolicy,
) -> Gpu | Withheld:
    bdf = normal_address(element.get("id", ""))
    product = _word(element, "product_name")
    uuid = _word(element, "uuid") or ""
    if _UUID.fullmatch(uuid) is None:
        return Withheld(bdf=bdf, product=product, reason="nvidia-smi cannot tell its UUID")
    verdict = _verdict(element, policy)
    memory, mig = _number(element, "fb_memory_usage/total"), _word(element, "mig_mode/current_mig")
    return Gpu(
        uuid=DeviceId(uuid),
        index=index,
        minor=_number(element, "minor_number"),
        bdf=bdf,
        product=product,
        memory_bytes=memory * _MIB if memory else None,
        compute_capability=capabilities.get(uuid),
        display=_display(element),
        mig_capable=None if mig is None else True,
        mig_enabled=mig == "Enabled",
        health=verdict.health,
        health_reason=verdict.reason,
    )


def _verdict(element: ElementTree.Element, policy: HealthPolicy) -> Verdict:
    reason = _counters(element) if policy.counters else None
    limit, degrees = policy.max_temperature, _number(element, "temperature/gpu_temp")
    if reason is None and limit is not None and degrees is not None and degrees >= limit:
        reason = heat_reason(limit)
    return Verdict(health=Health.FAULTY, reason=reason) if reason else Verdict()


def _counters(element: ElementTree.Element) -> str | None:
    action = _word(element, "gpu_recovery_action")
    if action is not None and action != "None":
        return recovery_reason(action.lower())
    if _word(element, "remapped_rows/remapped_row_failure") == "Yes":
        return ROWS_REASON
    volatile = element.find("ecc_errors/volatile")
    return ECC_REASON if volatile is not None and any(map(_uncorrected, volatile.iter())) else None


def _uncorrected(element: ElementTree.Element) -> bool:
    """Whether a counter tells of uncorrected errors; older drivers count double bit errors."""
    if element.tag == "double_bit":
        return bool(_number(element, "total"))
    return element.tag.startswith(("sram_uncorrectable", "dram_uncorrectable")) and bool(
        _value(element)
    )


def _display(element: ElementTree.Element) -> bool | None:
    words = [_word(element, name) for name in ("display_active", "display_attached")]
    if words == [None, None]:
        return None
    return any(word in ("Enabled", "Yes") for word in words)


def _word(element: ElementTree.Element, path: str) -> str | None:
    text = (element.findtext(path) or "").strip()
    absent = not text or text.startswith(("N/A", "[", "ERR!", "Unknown")) or "is lost" in text
    return text if not absent and text.isprintable() else None


def _number(element: ElementTree.Element, path: str) -> int | None:
    found = element.find(path)
    return _value(found) if found is not None else None


def _value(element: ElementTree.Element) -> int | None:
    """The number that an element begins with, as in `16311 MiB`."""
    match = re.match(r"\s*([0-9]{1,15})\b", element.text or "", re.ASCII)
    return int(match[1]) if match else None


def _matching(pattern: re.Pattern[str], text: str | None) -> str | None:
    text = (text or "").strip()
    return text if pattern.fullmatch(text) else None
