"""Options as kubectl's: before or behind the command, and what they come to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from cli.__main__ import COMMANDS, main
from cli.options import Duration, Given, Target

#: Modules that cost time and that few commands need.
_HEAVY = ("kubernetes", "rich", "yaml", "structlog", "grpc", "cryptography", "flask")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("7d", 604800), ("2w", 1209600), ("15", 15)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "5x", "1h foo", "s", "1.2.3s", "٣s"])
def test_what_is_no_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 30s, 5m, 24h or 7d"):
        Duration().convert(text, None, None)


def test_what_stands_behind_the_command_wins() -> None:
    target = Target(
        Given(namespace="before", request_timeout=1), Given(namespace="behind", request_timeout=2)
    )

    assert (target.named_namespace, target.request_timeout) == ("behind", 2)


@pytest.mark.parametrize("given", [Given(all_namespaces=True), Given(namespace="a")])
def test_all_namespaces_wins_over_one(given: Given) -> None:
    target = Target(given, Given(namespace="b", all_namespaces=True))

    assert target.namespace is None
    assert target.named_namespace is None


@pytest.mark.parametrize(("given", "least"), [(None, 10), (0, 86400), (3, 3)])
def test_no_limit_is_no_limit(given: float | None, least: float) -> None:
    assert Target(Given(request_timeout=given), Given()).request_timeout >= least


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_has_help(name: str) -> None:
    module, _, attribute = COMMANDS[name].where.partition(":")

    assert isinstance(getattr(import_module(module), attribute), click.Command)
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


@pytest.mark.parametrize("name", ["nodes", "gpus", "pods", "usage"])
def test_lists_take_the_options_of_kubectl(name: str) -> None:
    output = CliRunner().invoke(main, [name, "--help"]).output

    for option in (
        "--kubeconfig",
        "--context",
        "--request-timeout",
        "--no-headers",
        "-o, --output",
    ):
        assert option in output


def test_an_unknown_command_is_named() -> None:
    result = CliRunner().invoke(main, ["nods"])

    assert result.exit_code == 2
    assert "nods" in result.output


@pytest.mark.parametrize(
    "arguments", [["--help"], ["version", "--client"], ["nodes", "--help"], ["completion", "bash"]]
)
def test_what_is_not_needed_is_not_imported(arguments: Sequence[str]) -> None:
    """People wait for imports."""
    script = (
        "import sys; from cli.__main__ import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        f"heavy = [name for name in {_HEAVY} if name in sys.modules]\n"
        "sys.exit(', '.join(heavy) or 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
