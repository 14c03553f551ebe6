"""Peers that hold connections open and bring nothing: `python -m tests.service.attackers JSON`.

Each kind keeps a number of connections at one server; what the server closes is opened again, until
SIGTERM. Then what is open is only held, and the process ends when the server has closed all of it.
What happens is told as JSON lines on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from typing import Any

#: The start of a TLS ClientHello that never goes on.
PARTIAL_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
#: The start of a request whose body comes byte by byte.
SLOW_BODY = (
    b"POST /mutate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100000\r\n\r\n{"
)
#: Seconds between two bytes of a slow body, and before a closed connection is opened again.
_PACE = 1.0
_FIRST: Mapping[str, bytes] = {"silent": b"", "partial hello": PARTIAL_HELLO, "slow": SLOW_BODY}


class Attack:
    """All connections to one port; those with slow bodies speak TLS."""

    def __init__(self, port: int, *, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._over = asyncio.Event()
        self._opened = self._open = self._most = 0

    async def run(self, numbers: Mapping[str, int]) -> None:
        """Hold `numbers` connections of each kind until SIGTERM, then until they are closed."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._over.set)
        begun = [asyncio.Event() for _ in range(sum(numbers.values()))]
        kinds = [kind for kind, number in numbers.items() for _ in range(number)]
        async with asyncio.TaskGroup() as group:
            for kind, event in zip(kinds, begun, strict=True):
                group.create_task(self._keep(kind, event))
            for event in begun:
                await event.wait()
            tell("every one was open", most=self._most)
            await self._over.wait()
            asked, held = time.monotonic(), self._open
        seconds = round(time.monotonic() - asked, 2)
        tell("all are closed", seconds=seconds, held=held, most=self._most, opened=self._opened)

    async def _keep(self, kind: str, begun: asyncio.Event) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                await self._hold(kind, begun)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _PACE)

    async def _hold(self, kind: str, begun: asyncio.Event) -> None:
        context = self._context if kind == "slow" else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=context)
        self._opened += 1
        self._open += 1
        self._most = max(self._most, self._open)
        try:
            writer.write(_FIRST[kind])
            begun.set()
            while True:
                try:
                    async with asyncio.timeout(_PACE):
                        if not await reader.read(1000):
                            return
                except TimeoutError:
                    if kind == "slow":
                        writer.write(b" ")
        finally:
            self._open -= 1
            writer.close()


def tell(event: str, **keys: Any) -> None:
    sys.stderr.write(json.dumps({"event": event, **keys}) + "\n")


def main() -> None:
    options = json.loads(sys.argv[1])
    context = ssl.create_default_context(cafile=options["ca_file"])
    if "cert_file" in options:
        context.load_cert_chain(options["cert_file"], options["key_file"])
    asyncio.run(Attack(options["port"], context=context).run(options["numbers"]))


if __name__ == "__main__":
    main()
