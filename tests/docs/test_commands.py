"""Every command in the docs is one that its program takes."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.docs.not_run import NOT_RUN, reason
from tests.docs.pages import Command, commands, parse
from tests.docs.programs import CHECKED

#: Once each: the program takes a moment to start.
KUBECTL = list({each.words: each for each in commands() if each.words[0] == "kubectl"}.values())
OTHERS = [
    command
    for command in commands()
    if command.words[0] != "kubectl" and reason(command.text) is None
]


@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_a_command_is_taken_by_its_program(command: Command, tmp_path: Path) -> None:
    program, *arguments = command.words
    if "/" in program and program not in CHECKED:
        program = program.rpartition("/")[2]

    assert program in CHECKED, "nobody knows this program; see not_run.py"
    CHECKED[program](tuple(arguments), tmp_path)


@pytest.mark.controlplane
@pytest.mark.parametrize("command", KUBECTL, ids=str)
def test_kubectl_takes_a_command(
    command: Command, tmp_path: Path, control_plane_parts: None
) -> None:
    del control_plane_parts
    CHECKED["kubectl"](command.words[1:], tmp_path)


def test_what_is_not_run_is_in_the_docs() -> None:
    dead = [
        pattern
        for pattern in NOT_RUN
        if not any(re.fullmatch(pattern, command.text) for command in commands())
    ]

    assert dead == []


def test_the_docs_have_commands() -> None:
    """A parser that finds nothing would let everything pass."""
    programs = {command.words[0] for command in commands()}

    assert {"gpudetour", "kubectl", "make", "helm", "systemctl"} <= programs
    assert len(commands()) > 50


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sudo systemctl restart k3s   # now", [["systemctl", "restart", "k3s"]]),
        ("gpudetour a > file", [["gpudetour", "a"]]),
        ("a 'b c' | d && e", [["a", "b c"], ["d"], ["e"]]),
        ("FLAG=1 make x", [["make", "x"]]),
        ("a 2>&1 | b", [["a", "2"], ["b"]]),
    ],
)
def test_lines_are_split_as_by_a_shell(line: str, words: list[list[str]]) -> None:
    assert [list(command.words) for command in parse(line)] == words


@pytest.mark.parametrize(
    "line",
    [
        "gpudetour nodez",
        "gpudetour nodes --colour",
        "gpudetour scheduler-config --flavor k4s",
        "make everything",
        "helm install gpudetour manifests/charts",
        "helm upgrade gpudetour manifests/chart --set flavour=k3s",
        "python3 -m gpudetour",
    ],
)
def test_a_wrong_command_would_be_noticed(line: str, tmp_path: Path) -> None:
    (command,) = parse(line)

    with pytest.raises((AssertionError, click.UsageError)):
        CHECKED[command.words[0]](command.words[1:], tmp_path)
