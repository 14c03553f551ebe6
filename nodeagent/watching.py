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
from nodeagent.inventory.telemetry import Telemetry
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
        now: Callable[[], Moment],
    ) -> None:
        """`on_change` is told when something is different."""
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
        self.reader = InventoryReader(self._keeper, interval=READ_EVERY, on_change=on_change)
        self.telemetry = Telemetry(self._nvml.session)

    def spawn(self, lifecycle: Lifecycle, *, on_xid: Callable[[XidEvent], None]) -> None:
        """Start the threads; `on_xid` is told of every Xid."""

        def heard(event: XidEvent) -> None:
            self._keeper.report(event)
            on_xid(event)
            self.reader.wake()

        watcher = XidWatcher(self._nvml.session, heard, on_lost=self.reader.wake)
        lifecycle.spawn("inventory", self.reader.run, wake=self.reader.wake)
        lifecycle.spawn("xid", watcher.run)
