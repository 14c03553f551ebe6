"""The threads that watch the GPUs: one reads them again and again, one waits for Xids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nodeagent.inventory import kernel
from nodeagent.inventory.attempts import Patience
from nodeagent.inventory.events import XidEvent, XidWatcher
from nodeagent.inventory.keeper import Rules, node_keeper
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.standing import Moment
from nodeagent.reader import InventoryReader
from service.lifecycle import Lifecycle

#: Seconds between looks at the GPUs: one that fails without an event is kept from new pods within
#: 5 s, also where it is the driver that hangs (`Patience`).
READ_EVERY = 1.5


class GpuWatch:
    """The GPUs below one driver root, as all that can be learnt of them tells."""

    def __init__(
        self,
        driver_root: Path,
        *,
        rules: Rules,
        on_change: Callable[[], None],
        on_xid: Callable[[XidEvent], None],
        now: Callable[[], Moment],
    ) -> None:
        """`on_change` is told when something is different, `on_xid` of every Xid."""
        self._nvml = NvmlSource(
            driver_root,
            policy=rules.health,
            patience=Patience(),
            clock=lambda: now().monotonic,
            now=lambda: now().wall,
        )
        self._keeper = node_keeper(
            driver_root, self._nvml, rules=rules, now=now, boot=kernel.boot_id()
        )
        self._on_xid = on_xid
        self.reader = InventoryReader(self._keeper, interval=READ_EVERY, on_change=on_change)

    def spawn(self, lifecycle: Lifecycle) -> None:
        """Start the threads."""
        watcher = XidWatcher(self._nvml.session, self._heard, on_lost=self.reader.wake)
        lifecycle.spawn("inventory", self.reader.run, wake=self.reader.wake)
        lifecycle.spawn("xid", watcher.run)

    def _heard(self, event: XidEvent) -> None:
        self._keeper.report(event)
        self._on_xid(event)
        self.reader.wake()
