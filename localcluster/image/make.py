"""The images of the real node: compiled and packed once, then kept in the cache."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from types import MappingProxyType

from localcluster.files import unfinished_folder, write_atomically
from localcluster.image.archive import Image, archive
from localcluster.parts.catalogue import architecture
from localcluster.parts.locks import exclusive
from localcluster.parts.progress import Progress
from localcluster.settings import Settings
from localcluster.toolchain import ToolchainError, static_c_compiler

PAUSE_IMAGE = "gpudetour.local/pause:1"
"""Holds a pod's namespaces."""
BOX_IMAGE = "gpudetour.local/box:1"
"""Prints its environment and waits; knows nothing of GPUs."""
CUDA_IMAGE = "gpudetour.local/cuda:1"
"""The same with the variables that NVIDIA's CUDA images set, and so the risk that they bring."""

_SOURCE = Path(__file__).with_name("box.c")
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-static", "-s")
_PATH = MappingProxyType({"PATH": "/bin"})
_CUDA = MappingProxyType(
    {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
)
_LINKS = ("/bin/cat", "/bin/env", "/bin/ls", "/bin/sleep")


def image_archives(settings: Settings, *, progress: Progress) -> list[Path]:
    """Archive files of all images, made where they are not in the cache."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    folder = settings.cache / "images" / f"{digest}-{architecture()}"
    files = {
        folder / f"{reference.rpartition('/')[2].replace(':', '-')}.tar": reference
        for reference in (PAUSE_IMAGE, BOX_IMAGE, CUDA_IMAGE)
    }
    waiting = "another run is making the images; waiting for it"
    with exclusive(folder.with_name("images.lock"), waiting=lambda: progress.note(waiting)):
        if not all(file.exists() for file in files):
            with progress.task("compile the image program"):
                program = _compile(folder, settings, progress=progress)
            for file, reference in files.items():
                content = archive(_image(reference, program), architecture=architecture())
                write_atomically(file, content)
    return list(files)


def _image(reference: str, program: bytes) -> Image:
    return Image(
        reference=reference,
        program=program,
        path="/bin/box",
        links=_LINKS,
        entrypoint=["/bin/box"],
        command=["pause"] if reference == PAUSE_IMAGE else [],
        environment={**_PATH, **(_CUDA if reference == CUDA_IMAGE else {})},
    )


def _compile(folder: Path, settings: Settings, *, progress: Progress) -> bytes:
    """The bytes of the image program."""
    compiler = static_c_compiler(settings, progress=progress)
    with unfinished_folder(folder) as scratch:
        program = scratch / "box"
        outcome = subprocess.run(
            [*compiler, *_FLAGS, "-o", str(program), str(_SOURCE)],
            env=dict(settings.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            raise ToolchainError(f"{_SOURCE.name} cannot be compiled: {outcome.stderr[-800:]}")
        return program.read_bytes()
