"""What the programs that the docs name would say to what they are told, without running it."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import yaml

from cli.__main__ import main
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.settings import default_settings
from tests.docs.pages import ROOT

#: Files that a reader has or makes; whatever else is named must be in the repository.
_READERS_FILE = re.compile(r"(?!manifests/)[\w.-]+\.(yaml|log|conf|json)")
#: Where a container sees its node.
_READERS_ROOT = "/host"
_HELM = ("install", "upgrade", "uninstall", "test", "template", "list", "lint")


def gpudetour(words: Sequence[str], folder: Path) -> None:
    """Let click parse a command line, with the reader's files there; nothing is carried out."""
    arguments = [_there(word, folder) for word in words]
    with suppress(click.exceptions.Exit):  # of --help and --checks, which end parsing
        context = main.make_context("gpudetour", arguments)
        name, command, rest = main.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert command is not None, name
        command.make_context(name, rest, parent=context).close()


def _there(word: str, folder: Path) -> str:
    if _READERS_FILE.fullmatch(word):
        (folder / word).write_text("{}")
        return str(folder / word)
    return str(folder) if word == _READERS_ROOT else word


def kubectl(words: Sequence[str], folder: Path) -> None:
    """Ask the real kubectl for help with the same arguments: it refuses unknown ones first."""
    if words[:1] == ("gpudetour",):
        gpudetour(words[1:], folder)
        return
    program = find(catalogue(architecture())["kubectl"], default_settings())
    assert program is not None, "kubectl is not on this machine; make test builds it"
    before = words[: words.index("--")] if "--" in words else words
    done = subprocess.run(
        [program, *before, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    # Of a command that does not exist kubectl prints its own help.
    assert "kubectl controls the Kubernetes cluster manager" not in done.stdout, words
    _in_the_repository(words)


def make(words: Sequence[str], folder: Path) -> None:
    """The target is in the Makefile, and so is what is set."""
    del folder
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert re.search(rf"\$\({name}\)|^{name}\b", text, re.MULTILINE), name
        else:
            assert re.search(rf"^{re.escape(name)}:", text, re.MULTILINE), name


def helm(words: Sequence[str], folder: Path) -> None:
    """The chart is there, with every value that is set, and renders with them."""
    del folder
    assert words[0] in _HELM, words
    values = yaml.safe_load((ROOT / "manifests" / "chart" / "values.yaml").read_text())
    for option, value in itertools.pairwise(words):
        if option == "--set":
            assert _has(values, value.partition("=")[0].split(".")), value
    _in_the_repository(words)
    program = find(catalogue(architecture())["helm"], default_settings())
    if program is not None and words[0] in ("install", "upgrade"):
        settings = [word for word in words[1:] if word != "--reuse-values"]
        rendered = subprocess.run(
            [program, "template", *settings],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert rendered.returncode == 0, rendered.stderr


def python(words: Sequence[str], folder: Path) -> None:
    """The module is there."""
    del folder
    assert words[0] == "-m", words
    assert importlib.util.find_spec(words[1]) is not None, words


def ctr(words: Sequence[str], folder: Path) -> None:
    """Only images are imported, into the namespace that kubelet uses."""
    del folder
    assert list(words[:4]) == ["-n", "k8s.io", "images", "import"], words


def _in_the_repository(words: Sequence[str]) -> None:
    for word in words:
        if word.startswith(("manifests/", "docs/", "image/")):
            assert (ROOT / word).exists(), word


def _has(values: Any, path: list[str]) -> bool:
    for step in path:
        if not isinstance(values, Mapping) or step not in values:
            return False
        values = values[step]
    return True


CHECKED: Mapping[str, Callable[[Sequence[str], Path], None]] = {
    "gpudetour": gpudetour,
    "kubectl": kubectl,
    "make": make,
    "helm": helm,
    "python": python,
    "python3": python,
    "ctr": ctr,
}
