"""Building programs with Go from their published modules.

The Go command's own module and build caches are used, so that a second build of a version takes
seconds and a killed one goes on where it stopped. Modules are verified by Go against its checksum
database.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from localcluster.files import replacing, unfinished_folder
from localcluster.parts.catalogue import Part, Source
from localcluster.parts.gomodule import GoMod, module_text
from localcluster.parts.progress import Progress
from localcluster.settings import Settings
from localcluster.toolchain import c_compiler, go_program


class BuildError(Exception):
    """A program could not be built; the text holds the end of Go's own output."""


class Builder:
    """Builds parts; finds its toolchain at the first use."""

    def __init__(self, settings: Settings, *, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._go: Path | None = None

    def build(self, part: Part, target: Path, *, report: Callable[[str], None]) -> None:
        """Build `part` into the executable file `target`, or raise `BuildError` or
        `ToolchainError`.
        """
        source = part.group.source
        with unfinished_folder(target.parent) as workspace:
            report("reading its module")
            download = self._download(source, workspace)
            manifest = self._run_go(["mod", "edit", "-json", download["GoMod"]], workspace)
            module = module_text(source, cast(GoMod, json.loads(manifest)))
            if source.overlay:
                _copy_changed(Path(download["Dir"]), workspace / "source", source.overlay)
                module += f"replace {source.module} => ./source\n"
            (workspace / "go.mod").write_text(module)
            with replacing(target, mode=0o755) as program:
                command = ["build", "-v", "-trimpath", "-ldflags", source.ldflags]
                command += ["-tags", source.tags] if source.tags else []
                self._run_go(
                    [*command, "-o", str(program), part.package],
                    workspace,
                    cgo=source.cgo,
                    report=report,
                )

    def _download(self, source: Source, workspace: Path) -> dict[str, str]:
        """Where Go keeps the module and its go.mod."""
        # An empty module keeps Go from looking for one in the folders above.
        (workspace / "go.mod").write_text("module localcluster.invalid/build\n")
        module = f"{source.module}@{source.version}"
        found = json.loads(self._run_go(["mod", "download", "-json", module], workspace))
        return cast(dict[str, str], found)

    def _run_go(
        self,
        arguments: list[str],
        workspace: Path,
        *,
        cgo: bool = False,
        report: Callable[[str], None] = lambda _detail: None,
    ) -> str:
        if self._go is None:
            self._go = go_program(self._settings, progress=self._progress)
        environment = self._environment_for(cgo=cgo)
        with (
            tempfile.TemporaryFile("w+") as output,
            subprocess.Popen(
                [str(self._go), *arguments],
                cwd=workspace,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
        ):
            complaints = _follow(process, report)
            output.seek(0)
            if process.returncode != 0:
                said = output.read()[-400:] + "\n".join(complaints)
                raise BuildError(
                    f"go {arguments[0]} ended with {process.returncode}: {said.strip()}"
                )
            return output.read()

    def _environment_for(self, *, cgo: bool) -> dict[str, str]:
        environment = {
            **self._settings.environment,
            # Missing go.sum lines are added: the module is ours and throw-away.
            "GOFLAGS": "-mod=mod",
            "GOWORK": "off",
            "CGO_ENABLED": "1" if cgo else "0",
        }
        if cgo:
            compiler = c_compiler(self._settings, progress=self._progress)
            environment["CC"] = shlex.join(compiler)
        return environment


def _copy_changed(module: Path, target: Path, changes: Mapping[str, str]) -> None:
    """Copy a module out of Go's cache, which is read-only, with some files replaced."""
    shutil.copytree(module, target, copy_function=shutil.copyfile)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    for name, text in changes.items():
        (target / name).write_text(text)


def _follow(process: subprocess.Popen[str], report: Callable[[str], None]) -> list[str]:
    """Report each line that the process writes; give back the last ones when it has ended."""
    last: list[str] = []
    try:
        for count, line in enumerate(process.stderr or (), start=1):
            last = [*last[-14:], line.rstrip()]
            report(f"{count} packages, {line.strip().rpartition('/')[2]}")
        process.wait()
    except BaseException:
        process.terminate()
        raise
    return last
