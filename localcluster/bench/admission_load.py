"""Asking a server over HTTPS as fast as it answers, on some connections at once."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from localcluster.bench.wire import Wire, dial

#: Requests on each connection that are not counted.
_WARM_UP = 5


class NotAdmitted(Exception):
    """A request was answered with something else than 200; the text is what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Whom to ask what; `server` is a URL."""

    server: str
    path: str
    body: bytes
    context: ssl.SSLContext

    def message(self) -> bytes:
        """Return the whole request."""
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n".encode()
            + self.body
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came back; latencies are sorted, all in seconds."""

    latencies: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The latency that `share` of the requests do not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def ask_for(asking: Asking, *, connections: int, seconds: float) -> Answered:
    """Ask on so many connections, each as fast as it is answered, for so long."""
    began: list[float] = []

    def more() -> Iterator[bool]:
        while time.perf_counter() < began[0] + seconds:
            yield True

    return _ask(asking, connections=connections, more=more, began=began)


def ask_times(asking: Asking, *, connections: int, times: int) -> Answered:
    """Ask so many times in all."""
    numbers = count()

    def more() -> Iterator[bool]:
        while next(numbers) < times:
            yield True

    return _ask(asking, connections=connections, more=more, began=[])


def _ask(
    asking: Asking, *, connections: int, more: Callable[[], Iterator[bool]], began: list[float]
) -> Answered:
    message = asking.message()
    # The clock starts when all of them are warm.
    ready = threading.Barrier(connections, action=lambda: began.append(time.perf_counter()))

    def work() -> list[float]:
        wire = dial(asking.server, asking.context)
        try:
            for _ in range(_WARM_UP):
                _once(wire, message)
            ready.wait()
            return [_once(wire, message) for _ in more()]
        except BaseException:
            ready.abort()
            raise
        finally:
            wire.close()

    with ThreadPoolExecutor(connections) as pool:
        workers = [pool.submit(work) for _ in range(connections)]
        latencies = sorted(took for worker in workers for took in worker.result())
    return Answered(latencies=latencies, seconds=time.perf_counter() - began[0])


def _once(wire: Wire, message: bytes) -> float:
    asked = time.perf_counter()
    wire.write(message)
    head, answer = wire.read()
    took = time.perf_counter() - asked
    if not head.startswith(b"HTTP/1.1 20"):
        raise NotAdmitted(f"{head.splitlines()[0]!r}: {answer[:500]!r}")
    return took
