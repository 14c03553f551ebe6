"""The processors that an image can be made for, and what each is called where. Data only."""

from __future__ import annotations

import platform
from dataclasses import dataclass


class UnknownProcessor(Exception):
    """A processor for which no image can be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """One processor by its names."""

    name: str
    """Debian's, Go's and OCI's."""
    machine: str
    """The kernel's and Python's."""
    libraries: str
    """Debian's folder below /usr/lib."""
    loader: str
    """The dynamic loader, which the ABI fixes."""

    @property
    def wheel_platforms(self) -> tuple[str, ...]:
        """Wheels that Debian 12 can load, glibc 2.36; best first (PEP 600)."""
        newest_first = range(36, 16, -1)
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in newest_first]
        return (*tags, f"manylinux2014_{self.machine}", "any")


_PROCESSORS = (
    Processor(
        name="amd64",
        machine="x86_64",
        libraries="x86_64-linux-gnu",
        loader="usr/lib64/ld-linux-x86-64.so.2",
    ),
    Processor(
        name="arm64",
        machine="aarch64",
        libraries="aarch64-linux-gnu",
        loader="usr/lib/ld-linux-aarch64.so.1",
    ),
)


def this_processor() -> Processor:
    """The one of this machine; raises `UnknownProcessor`."""
    machine = platform.machine()
    for processor in _PROCESSORS:
        if machine in (processor.machine, processor.name):
            return processor
    known = ", ".join(processor.machine for processor in _PROCESSORS)
    raise UnknownProcessor(f"no image can be made for {machine}, only for {known}")
