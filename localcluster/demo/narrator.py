"""Prints the story: chapters, what was typed, what came back, and whether it came out as told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from localcluster.waiting import WaitedTooLong, until


class Narrator:
    """Speaks to one console; `failures` lists every promise that was not kept."""

    def __init__(self, console: Console, *, environment: dict[str, str]) -> None:
        self.console = console
        self.failures: list[str] = []
        self._environment = environment
        self._chapter = 0

    def chapter(self, title: str) -> None:
        """Open the next chapter."""
        self._chapter += 1
        self.console.print()
        self.console.rule(f"[bold]{self._chapter}. {title}", align="left")

    def say(self, text: str) -> None:
        """Explain what happens next, or why."""
        self.console.print(Text(text, style="italic"))

    def file(self, path: Path) -> None:
        """Show a file that the next command uses."""
        self._typed(f"cat {path.name}")
        self._came_back(path.read_text())

    def run(self, line: str, *, folder: Path | None = None) -> str:
        """Run a line of shell as the reader could, show it and its output; return the output."""
        self._typed(line)
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            env=self._environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self._came_back(done.stdout)
        return done.stdout

    def expect(self, promise: str, probe: Callable[[], bool], *, timeout: float = 60.0) -> bool:
        """Wait until `probe` is true, at most `timeout` seconds, and keep the score."""
        try:
            until(probe, timeout=timeout, what=promise)
        except WaitedTooLong:
            self.failures.append(promise)
            self.console.print(Text(f"  ✗ {promise}: not within {timeout:.0f} s", style="bold red"))
            return False
        self.console.print(Text(f"  ✓ {promise}", style="green"))
        return True

    def _typed(self, line: str) -> None:
        self.console.print(Text(f"$ {line}", style="bold cyan"), soft_wrap=True)

    def _came_back(self, output: str) -> None:
        for line in output.rstrip("\n").splitlines():
            self.console.print(Text(f"  {line}"), soft_wrap=True)
