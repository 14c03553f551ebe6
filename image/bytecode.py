"""Compiling Python for the image, by the image's own Python, so that starts are quick although the
root is read-only.

The interpreter is run where it was unpacked, through its own loader and libraries: no chroot, no
root, and the same bytes on every machine of a processor.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from image.platforms import Processor
from image.tree import File, Tree, write_tree
from image.wheels import PYTHON


class CompileError(Exception):
    """The image's Python cannot be run here, or some file is no Python."""


def compiled(tree: Tree, *, system: Tree, processor: Processor) -> Tree:
    """The compiled files of every module in `tree`; raises `CompileError`.

    `system` holds the interpreter. The files name no times (PEP 552, unchecked hashes).
    """
    sources = {path: entry for path, entry in tree.items() if path.endswith(".py")}
    with TemporaryDirectory(prefix="gpudetour-image-") as scratch:
        root, work = Path(scratch, "system"), Path(scratch, "work")
        write_tree(system, root)
        write_tree(sources, work)
        command = ["-m", "compileall", "-q", "-j1", "--invalidation-mode=unchecked-hash"]
        _python(root, processor, *command, "-s", str(work), "-p", "/", str(work))
        return {
            str(path.relative_to(work)): File(path.read_bytes())
            for path in sorted(work.rglob("*.pyc"))
        }


def _python(root: Path, processor: Processor, *arguments: str) -> None:
    libraries = root / "usr/lib" / processor.libraries
    loader = [str(root / processor.loader), "--library-path", str(libraries)]
    outcome = subprocess.run(
        [*loader, str(root / f"usr/bin/python{PYTHON}"), "-s", "-S", *arguments],
        # A seed of its own would order sets differently in each compiled file.
        env={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode != 0:
        said = (outcome.stdout + outcome.stderr).strip()
        raise CompileError(f"compiling for the image failed: {said[-800:]}")
