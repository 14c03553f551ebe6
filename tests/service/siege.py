"""A server under attack: peers that bring nothing on one side, callers that must be served."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from localcluster.bench.wire import Wire, dial
from tests.service.process import Process, running

#: As many of each kind as an attack is made of.
NUMBERS = {"silent": 500, "partial hello": 500, "slow": 500}
MEBI = 1 << 20
#: Seconds for thousands of connections to open on a busy machine, and to be closed.
OPENING = 120.0
CLOSING = 60.0
#: Seconds beyond a server's limits until the last one is closed: whoever is accepted only when the
#: attack is over has all of its time yet. 24 s in all were seen where the limits make 15.
SLACK = 20.0

#: Sends a request, checks the answer.
Ask = Callable[[Wire], None]


@contextmanager
def attack(
    port: int, *, ca_file: str, numbers: Mapping[str, int] = NUMBERS, **files: str
) -> Iterator[Process]:
    """Attack until the block ends; all connections were open when it begins.

    `files` are `cert_file` and `key_file`, if the attackers have a certificate.
    """
    options = {"port": port, "ca_file": ca_file, "numbers": numbers, **files}
    with running("tests.service.attackers", json.dumps(options)) as attackers:
        attackers.wait_for("every one was open", within=OPENING)
        yield attackers


def served(port: int, context: ssl.SSLContext, ask: Ask, *, times: int) -> list[float]:
    """Ask on a kept connection and, each time, on a new one; return how long each took, sorted.

    Whatever fails raises.
    """
    took = []
    kept = dial(f"https://127.0.0.1:{port}", context)
    try:
        for _ in range(times):
            began = time.monotonic()
            ask(kept)
            took.append(time.monotonic() - began)
            began = time.monotonic()
            fresh = dial(f"https://127.0.0.1:{port}", context)
            try:
                ask(fresh)
            finally:
                fresh.close()
            took.append(time.monotonic() - began)
    finally:
        kept.close()
    return sorted(took)


def p99(took: list[float]) -> float:
    return took[int(len(took) * 0.99)]


def bearable(before: list[float]) -> float:
    """Return the seconds that 99 of 100 answers may take under attack: one, or on a busy machine a
    few times as long as without.
    """
    return max(1.0, 4 * before[-1])


def worker(process: Process) -> int:
    """Return the process id of the worker of a server on gunicorn."""
    pid = process.popen.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
