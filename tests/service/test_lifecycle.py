"""Threads stop together, and none is lost unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from structlog.testing import capture_logs

from service.lifecycle import Lifecycle


def test_shutdown_stops_wakes_and_joins_every_thread() -> None:
    lifecycle = Lifecycle()
    woken = threading.Event()
    threads = [
        lifecycle.spawn("waits", lambda stop: _ignore(stop.wait())),
        lifecycle.spawn("blocks", lambda _stop: _ignore(woken.wait()), wake=woken.set),
    ]
    lifecycle.shutdown()

    assert [thread.is_alive() for thread in threads] == [False, False]
    assert lifecycle.draining.is_set()


def test_a_thread_that_does_not_stop_is_named() -> None:
    lifecycle = Lifecycle()
    release = threading.Event()
    thread = lifecycle.spawn("stubborn", lambda _stop: _ignore(release.wait()))
    with capture_logs() as records:
        lifecycle.shutdown(timeout=0.01)
    release.set()
    thread.join()

    assert [(r["event"], r["thread"]) for r in records] == [
        ("thread did not stop in time", "stubborn")
    ]


@pytest.mark.parametrize("body", ["raise ValueError('boom')", "raise SystemExit(0)", "return"])
def test_a_thread_that_ends_before_it_should_ends_the_process_with_1(body: str) -> None:
    program = f"""
from service.lifecycle import Lifecycle

def target(stop):
    {body}

lifecycle = Lifecycle()
lifecycle.spawn("worker", target)
lifecycle.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "worker" in done.stdout


def test_a_signal_ends_wait_and_the_process_ends_cleanly() -> None:
    program = """
import sys
from service.lifecycle import Lifecycle

lifecycle = Lifecycle()
lifecycle.install_signal_handlers()
lifecycle.spawn("worker", lambda stop: (stop.wait(), None)[1])
print("ready", flush=True)
lifecycle.wait()
lifecycle.shutdown()
print("bye", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        rest = process.stdout.read()

    assert process.returncode == 0
    assert rest.endswith("bye\n")


def _ignore(_value: object) -> None:
    """Make a target of a call that returns something."""
