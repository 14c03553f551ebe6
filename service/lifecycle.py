"""The threads of a process: started by name, stopped together, and never lost unnoticed.

A thread that dies would leave a process that looks alive and does half its work, so it takes the
whole process with it and the restart is Kubernetes' to do.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable

import structlog

from service.logs import SECONDS

Target = Callable[[threading.Event], None]

#: Seconds that `shutdown` waits for all threads together.
JOIN_TIMEOUT = 10.0

_THREAD = "thread"

log = structlog.get_logger()


class Lifecycle:
    """Owns the stop event and the threads of one process.

    Invariant: while `stop` is not set, every thread that was spawned is running, or the process
    is ending with exit code 1.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        #: Set when the end is near: readiness must be off, requests are still served.
        self.draining = threading.Event()
        self._wakers: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []
        # SimpleQueue.put may be called from a signal handler; Event.set may not, for it can meet
        # its own lock held by the interrupted code.
        self._wishes: queue.SimpleQueue[int] = queue.SimpleQueue()

    def spawn(
        self, name: str, target: Target, *, wake: Callable[[], None] | None = None
    ) -> threading.Thread:
        """Start `target(stop)` on its own thread; it must run until `stop` is set.

        `wake` is called after `stop` was set, for a thread that blocks on something else.
        """
        if wake is not None:
            self._wakers.append(wake)
        thread = threading.Thread(target=self._run, args=(name, target), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def install_signal_handlers(self) -> None:
        """End `wait` on SIGTERM and SIGINT; for processes that gunicorn does not run."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _frame: self._wishes.put(received))

    def wait(self) -> None:
        """Block the main thread until a signal or `shutdown` asks for the end, then set `stop`."""
        number = self._wishes.get()
        if number:
            log.info("stopping", signal=signal.Signals(number).name)
        self.stop.set()

    def shutdown(self, *, timeout: float = JOIN_TIMEOUT) -> None:
        """Set `stop` and give all threads together `timeout` seconds to end."""
        self.draining.set()
        self.stop.set()
        self._wishes.put(0)
        for wake in self._wakers:
            try:
                wake()
            except Exception:
                log.exception("a thread could not be woken")
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("thread did not stop in time", thread=thread.name, **{SECONDS: timeout})

    def _run(self, name: str, target: Target) -> None:
        try:
            target(self.stop)
        except BaseException:
            log.exception("thread failed", **{_THREAD: name})
        else:
            if not self.stop.is_set():
                log.error("thread ended without being asked to", **{_THREAD: name})
        if not self.stop.is_set():
            os._exit(1)
