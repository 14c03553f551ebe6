"""Names of ConfigMaps: each once, from the system's randomness, whoever asks at the same time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from gpus.annotations import DEVICES_CONFIG_MAP_NAME
from webhook.names import Names


def test_many_that_ask_at_once_get_names_of_their_own() -> None:
    names = Names(os.urandom)

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: names(), range(5000)))

    assert len(set(given)) == 5000
    assert all(DEVICES_CONFIG_MAP_NAME.fullmatch(name) for name in given)


def test_randomness_is_used_up_and_then_read_again() -> None:
    read: list[bytes] = []

    def randomness(size: int) -> bytes:
        read.append(os.urandom(size))
        return read[-1]

    names = Names(randomness)
    given = [names() for _ in range(300)]

    assert len(read) == 2
    text = b"".join(read).hex()
    assert all(name.removeprefix("gpudetour-devices-") in text for name in given)
