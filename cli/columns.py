"""What the columns of each list say. Pure.

Health is a word and a sign; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from cli.ages import age
from cli.render import Column
from cli.rows import Figures, GpuRow, Holder, NodeRow, PodRow
from gpus.annotations import PREFIX
from gpus.model import Health
from gpus.quantity import written

Row = TypeVar("Row")

ABSENT = "-"
_MAKER = "NVIDIA "
_NVIDIA = "nvidia.com/"
_GOOD, _BAD, _DOUBT = "green", "bold red", "yellow"
_SIGN = {Health.HEALTHY: "ok", Health.FAULTY: "!", Health.LOST: "x", Health.UNMONITORED: "?"}
_STYLE = {
    Health.HEALTHY: _GOOD,
    Health.FAULTY: _BAD,
    Health.LOST: _BAD,
    Health.UNMONITORED: _DOUBT,
}


def node_columns(*, wide: bool) -> Sequence[Column[NodeRow]]:
    """Columns of `gpudetour nodes`."""
    columns: Sequence[Column[NodeRow]] = (
        Column(header="NODE", cell=lambda row, _: row.node),
        Column(header="PATH", cell=lambda row, _: row.path, style=_path_style),
        Column(header="DRIVER", cell=lambda row, _: row.driver or ABSENT),
        Column(header="GPUS", cell=lambda row, _: str(row.devices)),
        Column(header="FREE", cell=lambda row, _: str(row.free)),
        Column(header="HELD", cell=lambda row, _: str(row.held)),
        Column(header="UNFIT", cell=lambda row, _: str(row.unfit)),
        Column(header="BEAT", cell=lambda row, now: _beat(row, now)),
        Column(header="SHARED", cell=lambda row, _: str(row.shared), wide=True),
        Column(header="CUDA", cell=lambda row, _: row.cuda or ABSENT, wide=True),
        Column(header="MODELS", cell=lambda row, _: _counted(row.products), wide=True),
        Column(header="HEALTH", cell=lambda row, now: _node_health(row, now), style=_node_style),
        Column(header="WHY", cell=lambda row, _: row.reason or ABSENT, wide=True),
    )
    return _chosen(columns, wide=wide)


def gpu_columns(*, wide: bool) -> Sequence[Column[GpuRow]]:
    """Columns of `gpudetour gpus`."""
    columns: Sequence[Column[GpuRow]] = (
        Column(header="NODE", cell=lambda row, _: row.node),
        Column(header="GPU", cell=lambda row, _: str(row.index)),
        Column(header="MODEL", cell=lambda row, _: _model(row.product)),
        Column(header="TEMP", cell=lambda row, _: _figure(row.now, "temperature_celsius", "C")),
        Column(header="UTIL", cell=lambda row, _: _utilization(row.now)),
        Column(header="MEMORY", cell=lambda row, _: _memory(row)),
        Column(
            header="POWER", cell=lambda row, _: _figure(row.now, "power_watts", " W"), wide=True
        ),
        Column(
            header="HEALTH", cell=lambda row, _: _health(row), style=lambda row: _STYLE[row.health]
        ),
        Column(header="HOLDER", cell=lambda row, _: _holders(row.holders)),
        Column(header="PATH", cell=lambda row, _: row.path, wide=True),
        Column(header="UUID", cell=lambda row, _: row.device, wide=True),
        Column(header="WHY", cell=lambda row, _: row.health_reason or ABSENT, wide=True),
    )
    return _chosen(columns, wide=wide)


def pod_columns(*, wide: bool, namespace: bool) -> Sequence[Column[PodRow]]:
    """Columns of `gpudetour pods`; with `namespace` where several are listed."""
    first: Column[PodRow] = Column(header="NAMESPACE", cell=lambda row, _: row.namespace)
    columns: Sequence[Column[PodRow]] = (
        *((first,) if namespace else ()),
        Column(header="NAME", cell=lambda row, _: row.name),
        Column(header="ASKS", cell=lambda row, _: _asks(row.asks)),
        Column(header="GOT", cell=lambda row, _: _got(row)),
        Column(header="PHASE", cell=lambda row, _: row.phase),
        Column(header="NODE", cell=lambda row, _: row.node or ABSENT),
        Column(header="AGE", cell=lambda row, now: age(row.created, now)),
        Column(header="WISHES", cell=lambda row, _: _wishes(row.wishes) or ABSENT, wide=True),
        Column(header="GPUS", cell=lambda row, _: ",".join(row.devices) or ABSENT, wide=True),
    )
    return _chosen(columns, wide=wide)


def _chosen(columns: Sequence[Column[Row]], *, wide: bool) -> Sequence[Column[Row]]:
    return [column for column in columns if wide or not column.wide]


def _path_style(row: NodeRow) -> str:
    return "" if row.serving else _DOUBT


def _beat(row: NodeRow, now: datetime) -> str:
    return ABSENT if row.heartbeat is None else age(row.heartbeat, now)


def _node_health(row: NodeRow, now: datetime) -> str:
    troubles = [*row.ailing]
    if row.silent:
        troubles.insert(0, f"its agent has been silent for {age(row.heartbeat, now)}")
    if row.fault:
        troubles.insert(0, row.fault)
    if not row.serving:
        troubles.append(row.reason or f"path {row.path}: takes no new pods")
    if not troubles:
        return "ok"
    return f"{'?' if not row.ailing else '!'} {'; '.join(troubles)}"


def _node_style(row: NodeRow) -> str:
    if row.ailing or row.fault:
        return _BAD
    return _DOUBT if row.silent or not row.serving else _GOOD


def _health(row: GpuRow) -> str:
    return "ok" if row.health is Health.HEALTHY else f"{_SIGN[row.health]} {row.health}"


def _model(product: str | None) -> str:
    return product.removeprefix(_MAKER) if product else ABSENT


def _counted(products: Mapping[str, int]) -> str:
    return ", ".join(f"{products[name]} {_model(name)}" for name in sorted(products)) or ABSENT


def _figure(now: Figures | None, name: str, unit: str) -> str:
    value = getattr(now, name) if now is not None else None
    return ABSENT if value is None else f"{value:.0f}{unit}"


def _utilization(now: Figures | None) -> str:
    if now is None or now.utilization is None:
        return ABSENT
    return f"{now.utilization * 100:.0f}%"


def _memory(row: GpuRow) -> str:
    """Used and all of it, in MiB as nvidia-smi has them."""
    used = row.now.memory_used_bytes if row.now is not None else None
    parts = (used, row.memory_bytes)
    shown = (ABSENT if part is None else str(int(part) >> 20) for part in parts)
    return " / ".join(shown) + " MiB" if parts != (None, None) else ABSENT


def _holders(holders: Sequence[Holder]) -> str:
    return ", ".join(_holder(holder) for holder in holders) or ABSENT


def _holder(holder: Holder) -> str:
    share = f" ({written(holder.share_bytes)})" if holder.share_bytes else ""
    return f"{holder.pod}{share}"


def _asks(asks: str) -> str:
    """Names of resources without who made them, which is said in JSON."""
    return asks.replace(_NVIDIA, "").replace(PREFIX, "") or ABSENT


def _got(row: PodRow) -> str:
    if not row.devices:
        return ABSENT
    if row.share_bytes:
        return f"{written(row.share_bytes)} of {_counted(row.products)}"
    return _counted(row.products) if row.products else f"{len(row.devices)} GPUs"


def _wishes(wishes: Mapping[str, str]) -> str:
    return "; ".join(f"{key}={' '.join(text.split())}" for key, text in wishes.items())
