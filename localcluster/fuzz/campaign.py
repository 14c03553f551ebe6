"""Very many requests on all processors, in pieces that can be repeated one by one."""

from __future__ import annotations

import base64
import faulthandler
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from random import Random

import structlog

from localcluster.fuzz.asking import Target
from localcluster.fuzz.targets import TARGETS
from localcluster.parts.progress import Progress

PIECE = 1000
"""Requests that one application is asked; the next are for a new one."""

_STUCK = 60.0
"""Seconds for so many requests as one look at the clock covers, before all stacks are shown."""
_LOOK = 50
_SHOWN = 16_384
"""Bytes of a body that are printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Requests `first` to `first + number` of one target; the seed and these make them."""

    target: str
    seed: int
    first: int
    number: int

    def command(self, number: int) -> str:
        """Return how to send this piece again, as far as that request."""
        last = number - self.first + 1
        return (
            f"python -m localcluster.fuzz --only={self.target} --seed={self.seed} "
            f"--first={self.first} --inputs={last} --processes=1"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that was not in order."""

    target: str
    number: int
    path: str
    content_type: str
    body: bytes
    fault: str
    command: str

    def __str__(self) -> str:
        body = base64.b64encode(self.body[:_SHOWN]).decode()
        if len(self.body) > _SHOWN:
            body += f"… (the rest of {len(self.body):,} bytes comes with the command)"
        return (
            f"{self.target}, request {self.number}: POST {self.path} as {self.content_type!r}\n"
            f"{self.fault}\nbody, base64: {body}\nagain: {self.command}"
        )


@dataclass(slots=True)
class Seen:
    """What requests came to; seconds."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, other: Seen) -> None:
        """Take the rest in."""
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)


def pieces(target: str, *, seed: int, first: int, inputs: int) -> Iterator[Piece]:
    """Cut so many requests of one target into pieces.

    The borders are where they always are, because an application is a new one at each.
    """
    end = first + inputs
    while first < end:
        number = min(PIECE - first % PIECE, end - first)
        yield Piece(target=target, seed=seed, first=first, number=number)
        first += number


def send(piece: Piece, *, targets: Mapping[str, Callable[[], Target]] = TARGETS) -> Seen:
    """Send one piece in this process; the requests that follow a failure are not sent."""
    seen = Seen()
    target = targets[piece.target]()
    try:
        for number in range(piece.first, piece.first + piece.number):
            if number % _LOOK == 0:
                faulthandler.dump_traceback_later(_STUCK, exit=True)
            # Not for secrets, but for the same requests each time.
            rng = Random(f"{piece.seed}/{piece.target}/{number}")  # noqa: S311
            sent = target.request(rng)
            began = time.perf_counter()
            try:
                outcome = target.answered(sent)
            except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
                failure = Failure(
                    target=piece.target,
                    number=number,
                    path=sent.path,
                    content_type=sent.content_type,
                    body=sent.body,
                    fault=traceback.format_exc(),
                    command=piece.command(number),
                )
                seen.failures.append(failure)
                break
            seen.outcomes[piece.target, outcome] += 1
            seen.slowest = max(seen.slowest, time.perf_counter() - began)
    finally:
        faulthandler.cancel_dump_traceback_later()
        target.close()
    return seen


def run(
    todo: Iterator[Piece], seen: Seen, *, total: int, processes: int, progress: Progress
) -> None:
    """Send all pieces, and put what they came to into `seen`; `total` is how many requests they
    hold.

    Raises `BrokenProcessPool` when a process dies, with the pieces it may have been at.
    """
    with progress.task(f"{total:,} requests") as tell:
        for piece in _sent(todo, processes):
            seen.add(piece)
            tell(f"{seen.outcomes.total():,} answered, {len(seen.failures)} not in order")


def _sent(todo: Iterator[Piece], processes: int) -> Iterator[Seen]:
    if processes == 1:
        yield from map(send, todo)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=quiet) as pool:
        running: dict[Future[Seen], Piece] = {
            pool.submit(send, piece): piece for piece in islice(todo, 2 * processes)
        }
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield _result(each, running)
                running.pop(each)
                running |= {pool.submit(send, piece): piece for piece in islice(todo, 1)}


def quiet() -> None:
    """Log nothing: what is refused would be told a million times, and a failure tells itself."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _result(done: Future[Seen], running: dict[Future[Seen], Piece]) -> Seen:
    try:
        return done.result()
    except BrokenProcessPool as error:
        commands = [piece.command(piece.first + piece.number - 1) for piece in running.values()]
        text = "\n".join(["a process died at one of these:", *commands])
        raise BrokenProcessPool(text) from error


def processors() -> int:
    """Return how many processes are worth it."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
