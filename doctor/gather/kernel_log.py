"""NVIDIA's lines in the kernel's log, since the last boot."""

from __future__ import annotations

import os
from collections.abc import Iterator

from doctor.gather.tree import Tree

#: Syslog's files of kernel messages, by distribution.
_FILES = ("var/log/kern.log", "var/log/dmesg", "var/log/messages")
#: Bytes of a log that are looked at, from its end.
_TAIL = 4 << 20
#: The kernel's first message.
_BOOT = "Linux version "
_DEVICE, _NUMBERS = "dev/kmsg", (1, 11)
#: Records of the kernel's ring; far more than it can hold.
_MOST_RECORDS = 200_000


def read_kernel_log(tree: Tree) -> tuple[str, ...] | None:
    """Return the lines in which NVIDIA's driver or its rivals speak, None without any log."""
    # Below a mounted root it is the same kernel's; on the disk of a dead machine there is none.
    if tree.device(_DEVICE) == _NUMBERS and (text := _ring(tree)) is not None:
        return _relevant(text)
    texts = [text for name in _FILES if (text := tree.text(name, tail=_TAIL)) is not None]
    if not texts:
        return None
    return tuple(line for text in texts for line in _relevant(text))


def _relevant(text: str) -> tuple[str, ...]:
    since_boot = text[text.rfind(_BOOT) :] if _BOOT in text else text
    return tuple(
        line.strip() for line in since_boot.splitlines() if "NVRM" in line or "nvidia" in line
    )


def _ring(tree: Tree) -> str | None:
    path = tree.find(_DEVICE)
    if path is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        tree.unreadable[f"/{_DEVICE}"] = (error.strerror or str(error)).lower()
        return None
    try:
        return "\n".join(_records(handle))
    finally:
        os.close(handle)


def _records(handle: int) -> Iterator[str]:
    for _ in range(_MOST_RECORDS):
        try:
            record = os.read(handle, 8192)
        except BrokenPipeError:  # overwritten while we read; the next read goes on behind it
            continue
        except OSError:  # BlockingIOError: that was the last one
            return
        if not record:
            return
        yield record.decode(errors="replace").partition(";")[2].partition("\n")[0]
