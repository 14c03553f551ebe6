"""Node labels compatible with NVIDIA's GPU feature discovery, made from an inventory. Pure.

Names and formats are those of k8s-device-plugin docs/gpu-feature-discovery and internal/lm; only
what the inventory knows becomes a label. `mps.capable` is left to who sets MPS up. Whether they may
be written at all is decided by who owns them now (`nodeagent.publisher.features_owned_by_others`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE, PRODUCT_LABEL_PREFIX
from gpus.model import Gpu, NodeInventory

PREFIX = "nvidia.com/"
#: Written by GPU feature discovery itself, unless it runs with --no-timestamp.
TIMESTAMP = PREFIX + "gfd.timestamp"

#: What a label value may hold; GPU feature discovery does not cut or trim, so a long or oddly
#: ending product name makes the API server refuse all its labels.
_MAX_VALUE = 63
#: The same for the part of a label's name behind the slash, of which `product.` takes some.
_MAX_MODEL = _MAX_VALUE - len("product.")
_MIB = 1 << 20

#: Compute capability to family, as internal/lm/resource.go getArchFamily.
_FAMILIES: Mapping[int, str] = {
    1: "tesla", 2: "fermi", 3: "kepler", 5: "maxwell", 6: "pascal", 9: "hopper",
    10: "blackwell", 12: "blackwell", 13: "rubin",
}  # fmt: skip


#: VGA controllers drive screens, 3D controllers do not.
_MODES: Mapping[int | None, str] = {0x030000: "graphics", 0x030200: "compute"}


def node_labels(inventory: NodeInventory) -> dict[str, str]:
    """Return the labels of a node with these GPUs, without our own; empty when it has none.

    There is one set of labels a node: on mixed nodes product, memory and family are those of the
    most frequent model (of the lowest index among equals), while the count is of all GPUs.
    """
    if not inventory.gpus:
        return {}
    labels = {
        "gpu.count": str(len(inventory.gpus)),
        "gpu.replicas": "1",
        "gpu.sharing-strategy": "none",
        "gpu.machine": sanitise(inventory.machine or "") or "unknown",
        "gpu.mode": _mode(inventory.gpus),
        "mig.capable": _mig_capable(inventory.gpus),
        **_driver(inventory.driver),
        **_cuda(inventory.cuda),
        **_model(_typical(inventory.gpus)),
        **_mig(inventory.gpus),
    }
    return {PREFIX + name: value for name, value in labels.items() if value}


def own_labels(inventory: NodeInventory | None) -> dict[str, str]:
    """Return our own labels of a node with GPUs, readable or not.

    One is what the webhook's node selector asks for; the others count the GPUs of each model, which
    the labels of GPU feature discovery cannot tell of mixed nodes.
    """
    gpus = inventory.gpus if inventory is not None else ()
    names = (sanitise(gpu.product or "", most=_MAX_MODEL) for gpu in gpus)
    counts = Counter(name for name in names if name)
    return {GPU_LABEL: GPU_LABEL_VALUE} | {
        PRODUCT_LABEL_PREFIX + name: str(count) for name, count in counts.items()
    }


def is_feature_label(name: str) -> bool:
    """Tell whether GPU feature discovery, or we in its place, may have written this label."""
    return name.startswith(
        tuple(PREFIX + family for family in ("gpu.", "cuda.", "mig.", "mig-"))
    ) and not name.startswith(_OPERATOR)


#: Written by NVIDIA's operator, not by GPU feature discovery, and wanted by its charts.
_OPERATOR = (PREFIX + "gpu.deploy.", PREFIX + "gpu.present", PREFIX + "mig.config")


def sanitise(text: str, *, most: int = _MAX_VALUE) -> str:
    """Make a label value of a model name: forbidden characters dropped, words joined by "-"."""
    words = re.sub(r"[^A-Za-z0-9\-_. ]", "", text, flags=re.ASCII).split()
    return "-".join(words)[:most].strip("-_.")


def _typical(gpus: Iterable[Gpu]) -> Gpu:
    in_order = sorted(gpus, key=lambda gpu: gpu.index)
    counts = Counter(gpu.product for gpu in in_order)
    return max(in_order, key=lambda gpu: counts[gpu.product])


def _model(gpu: Gpu) -> dict[str, str]:
    labels = {"gpu.product": sanitise(gpu.product or "")}
    if gpu.memory_bytes is not None:
        labels["gpu.memory"] = str(gpu.memory_bytes // _MIB)
    if gpu.compute_capability is not None:
        major, minor = gpu.compute_capability
        labels["gpu.compute.major"] = str(major)
        labels["gpu.compute.minor"] = str(minor)
        labels["gpu.family"] = _family(major, minor)
    return labels


def _family(major: int, minor: int) -> str:
    if major == 7:
        return "volta" if minor < 5 else "turing"
    if major == 8:
        return "ampere" if minor < 9 else "ada-lovelace"
    return _FAMILIES.get(major, "undefined")


def _mode(gpus: Iterable[Gpu]) -> str:
    """What the cards are for, by their PCI class; GPU feature discovery has one word a node too."""
    classes = {gpu.pci_class for gpu in gpus}
    return _MODES.get(classes.pop(), "unknown") if len(classes) == 1 else "unknown"


def _mig_capable(gpus: Iterable[Gpu]) -> str:
    known = [gpu.mig_capable for gpu in gpus if gpu.mig_capable is not None]
    return str(any(known)).lower() if known else ""


def _driver(version: str | None) -> dict[str, str]:
    """Labels of a version X.Y or X.Y.Z; of anything else none."""
    match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", version or "", re.ASCII)
    if match is None:
        return {}
    major, minor, revision = match[1], match[2], match[3] or ""
    return {
        "cuda.driver-version.full": match[0],
        "cuda.driver-version.major": major,
        "cuda.driver-version.minor": minor,
        "cuda.driver-version.revision": revision,
        "cuda.driver.major": major,
        "cuda.driver.minor": minor,
        "cuda.driver.rev": revision,
    }


def _cuda(version: str | None) -> dict[str, str]:
    match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", version or "", re.ASCII)
    if match is None:
        return {}
    return {
        "cuda.runtime-version.full": match[0],
        "cuda.runtime-version.major": match[1],
        "cuda.runtime-version.minor": match[2],
        "cuda.runtime.major": match[1],
        "cuda.runtime.minor": match[2],
    }


def _mig(gpus: Iterable[Gpu]) -> dict[str, str]:
    """Labels of the `mixed` strategy, which is how MIG instances are served here."""
    enabled = [gpu for gpu in gpus if gpu.mig_enabled]
    if not enabled:
        return {}
    labels = {"mig.capable": "true", "mig.strategy": "mixed"}
    instances = [(gpu, instance) for gpu in enabled for instance in gpu.mig]
    counts = Counter(instance.resource for _, instance in instances)
    for gpu, instance in instances:
        name = instance.resource.removeprefix(PREFIX)
        labels[f"{name}.count"] = str(counts[instance.resource])
        product = sanitise(f"{gpu.product or ''} MIG {instance.profile}")
        labels.setdefault(f"{name}.product", product)
        if instance.memory_bytes is not None:
            labels.setdefault(f"{name}.memory", str(instance.memory_bytes // _MIB))
    return labels
