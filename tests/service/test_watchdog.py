"""A request that is stuck ends the process, and the log tells where it stood."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from service.watchdog import Watchdog

#: Seconds for what happens at once on an idle machine.
PATIENCE = 20.0


class Ended:
    """Stands where the process would end."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.happened = threading.Event()

    def __call__(self, code: int) -> None:
        self.code = code
        self.happened.set()


@contextmanager
def running(watchdog: Watchdog) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=watchdog.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def never_to_return(watchdog: Watchdog, leave: threading.Event) -> None:
    with watchdog.watching("filter"):
        leave.wait()


@pytest.fixture
def ended(capfd: pytest.CaptureFixture[str]) -> Ended:
    del capfd  # stacks are written to the file descriptor
    return Ended()


def test_a_stuck_request_ends_the_process_with_its_stack_in_the_log(
    ended: Ended, capfd: pytest.CaptureFixture[str]
) -> None:
    watchdog = Watchdog({"filter": 0.1, "bind": 1000.0}, end=ended, interval=0.01)
    leave = threading.Event()
    thread = threading.Thread(target=never_to_return, args=(watchdog, leave))
    with capture_logs() as records, watchdog.watching("bind"), running(watchdog):
        thread.start()
        assert ended.happened.wait(PATIENCE)
        leave.set()
        thread.join()

    assert ended.code == 1
    (record,) = [r for r in records if r["log_level"] == "error"][:1]
    assert record["event"] == "a request is stuck, ending the process"
    assert record["request"] == "filter"
    assert "never_to_return" in record["stack"]
    # Of all threads, for the one that holds the lock is the more telling.
    written = capfd.readouterr().err
    assert "never_to_return" in written
    assert "Thread 0x" in written


def test_requests_within_their_limit_and_names_without_one_go_on(ended: Ended) -> None:
    watchdog = Watchdog({"filter": 1000.0}, end=ended, interval=0.001)
    with running(watchdog), watchdog.watching("filter"), watchdog.watching("nothing"):
        assert not ended.happened.wait(0.1)


def test_time_in_which_nothing_ran_does_not_count() -> None:
    watchdog = Watchdog({"filter": 5.0}, interval=0.25)
    with watchdog.watching("filter"):
        # What `run` passes on after the process was stopped for an hour, at most.
        assert watchdog._look(0.5) is None
        assert watchdog._look(4.4) is None
        assert watchdog._look(0.5) is not None


def test_a_request_that_has_ended_is_forgotten(ended: Ended) -> None:
    watchdog = Watchdog({"filter": 0.0}, end=ended)
    with watchdog.watching("filter"):
        pass

    assert watchdog._look(1.0) is None
