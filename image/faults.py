"""What can go wrong on the way to an image and is told in words; anything else is a bug."""

from __future__ import annotations

from image.bytecode import CompileError
from image.debian import DebianError
from image.package import PackageError
from image.platforms import UnknownProcessor
from image.product import ProductError
from image.tree import TreeError
from image.wheels import WheelError

FAULTS = (
    CompileError,
    DebianError,
    OSError,
    PackageError,
    ProductError,
    TreeError,
    UnknownProcessor,
    WheelError,
)
