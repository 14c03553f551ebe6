"""Tables, JSON and YAML of rows, whatever is written in them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from cli.ages import age, length
from cli.render import Column, Table, document
from gpus.model import Health

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    name: str
    health: Health = Health.LOST
    since: datetime | None = None


NAMES = (
    Column[Row](header="NAME", cell=lambda row, _: row.name),
    Column[Row](header="HEALTH", cell=lambda row, _: row.health, style=lambda _: "bold red"),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO, *names: str) -> str:
    Table(stream, NAMES).write([Row(name) for name in names], now=NOW)
    return stream.getvalue()


def test_a_pipe_gets_plain_text_and_nothing_is_cut() -> None:
    name = "n" * 5000

    assert written(io.StringIO(), "short", name).splitlines() == [
        f"{'NAME':5000}   HEALTH",
        f"{'short':5000}   lost",
        f"{name}   lost",
    ]


def test_later_rows_stand_under_the_same_headers() -> None:
    stream = io.StringIO()
    table = Table(stream, NAMES)
    table.write([Row("a-long-name")], now=NOW)
    table.write([Row("b")], now=NOW)

    assert stream.getvalue().splitlines()[2] == "b             lost"
    assert stream.getvalue().count("NAME") == 1


def test_headers_can_be_left_out() -> None:
    stream = io.StringIO()
    Table(stream, NAMES, headers=False).write([Row("a")], now=NOW)

    assert stream.getvalue() == "a   lost\n"


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.setenv("NO_COLOR", variable)
    text = written(Terminal(), "a")

    assert ("\x1b[1;31m" in text) is coloured
    assert "lost" in text, "what colour says is said in words too"


def test_a_dumb_terminal_gets_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")

    assert "\x1b" not in written(Terminal(), "a")


def test_what_others_wrote_cannot_command_a_terminal() -> None:
    text = written(io.StringIO(), "a\x1b]0;owned\x07\nb\u202ec")

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 2


def test_wide_characters_keep_columns_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    header, first, second = written(Terminal(), "图形", "abcd").splitlines()

    assert first == "图形   lost"
    assert second == "abcd   lost"
    assert header == "NAME   HEALTH"


def test_json_and_yaml_say_the_same() -> None:
    rows = [Row("yes", since=NOW), Row("a: b\n- c", Health.HEALTHY)]

    as_json = json.loads(document(rows, "json"))

    assert as_json == yaml.safe_load(document(rows, "yaml"))
    assert as_json[0] == {"name": "yes", "health": "lost", "since": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 90, "3h1m"),
        (8 * 3600 + 90, "8h"),
        (2 * 86400, "2d"),
        (2 * 86400 + 7200, "2d2h"),
        (8 * 86400 + 7200, "8d"),
        (2 * 365 * 86400 + 86400, "2y1d"),
        (9 * 365 * 86400 + 86400, "9y"),
    ],
)
def test_lengths_are_written_as_kubectl_writes_them(seconds: float, text: str) -> None:
    assert length(seconds) == text


def test_the_age_of_something_that_nobody_dated() -> None:
    assert age(None, NOW) == "<unknown>"
    assert age(NOW - timedelta(days=1), NOW) == "24h"
