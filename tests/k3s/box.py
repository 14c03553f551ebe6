"""A K3s box below a folder: its files, what its page says, and how K3s reads both.

K3s itself cannot be had here. What it does with its configuration is done as its documentation has
it: each entry of `kube-scheduler-arg` is an argument without the dashes, over its own ones.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.docs.pages import ROOT, Command, blocks, commands

PAGE = "docs/install/k3s.md"
HERE = Path(__file__).parent
CONTAINERD = "var/lib/rancher/k3s/agent/etc/containerd"
#: File name of each template beside the rendered file, by version of the tables in it.
TEMPLATES = {3: "config-v3.toml.tmpl", 2: "config.toml.tmpl"}
_TABLE = {3: "io.containerd.cri.v1.runtime", 2: "io.containerd.grpc.v1.cri"}


def template_of_page(version: int) -> str:
    """The template that the page gives for containerd tables of that version."""
    (found,) = (
        "\n".join(block.lines) + "\n"
        for block in blocks()
        if block.page == PAGE
        and block.language == "toml"
        and _TABLE[version] in "".join(block.lines)
    )
    return found


def config_of_page() -> dict[str, Any]:
    """What the page adds to K3s's config.yaml."""
    (found,) = (
        yaml.safe_load("\n".join(block.lines))
        for block in blocks()
        if block.page == PAGE
        and block.language == "yaml"
        and any(line.startswith("kube-scheduler-arg:") for line in block.lines)
    )
    assert isinstance(found, dict)
    return found


def command_of_page(*start: str) -> Command:
    """The one command of the page that begins so."""
    (found,) = {
        each.words: each
        for each in commands()
        if each.page == PAGE and each.words[: len(start)] == start
    }.values()
    return found


#: Lays the box's files over the machine's, for one program and for nobody else, and becomes it.
_LAY_OVER = """
set -e
for folder in etc var/lib; do
    mkdir -p "$0/$folder" "$0/work/$folder"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$0/$folder,workdir=$0/work/$folder" \\
        box "/$folder"
done
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Box:
    """The box's root folder; paths of the page lie below it."""

    root: Path

    def at(self, path: str) -> Path:
        """Where an absolute path of the page is here."""
        return self.root / path.lstrip("/")

    def inside(self, *command: str | Path) -> list[str | Path]:
        """The command of a program that sees the box's files at their own paths. Needs root."""
        apart = ("unshare", "--mount", "--propagation", "private")
        return [*apart, "sh", "-c", _LAY_OVER, self.root, *command]

    def write(self, path: str, text: str) -> Path:
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def scheduler_arguments(self, own: Mapping[str, str]) -> list[str]:
        """kube-scheduler's arguments by K3s: its own, and those of config.yaml over them."""
        config = yaml.safe_load(self.at("/etc/rancher/k3s/config.yaml").read_text())
        arguments = dict(own)
        for entry in config["kube-scheduler-arg"]:
            name, _, value = str(entry).partition("=")
            arguments[name] = value
        return [f"--{name}={value}" for name, value in sorted(arguments.items())]

    def render(
        self, program: Path, *, version: int, template: str, found: Mapping[str, str]
    ) -> Path:
        """Write containerd's configuration as K3s does when it starts."""
        user = self.write(f"{CONTAINERD}/{TEMPLATES[version]}", template)
        data = self.write("data.json", json.dumps({"Root": str(self.root), "Found": dict(found)}))
        done = subprocess.run(
            [program, user, HERE / f"base-v{version}.tmpl", data],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return self.write(f"{CONTAINERD}/config.toml", done.stdout)


def page_text() -> str:
    return (ROOT / PAGE).read_text()
