"""All records of a process come out as one stream, whoever wrote them."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging, sys, warnings
import structlog
from service import logs

logs.configure(level="info", json=sys.argv[1] == "json")
structlog.get_logger().info("pod bound", **{logs.POD: "default/a", logs.GPUS: ["GPU-1"]})
structlog.get_logger().debug("not shown")
logging.getLogger("gunicorn.error").warning("from %s", "elsewhere")
logging.getLogger("urllib3.connectionpool").debug("not shown")
structlog.get_logger().info("odd", one="\\ud800", two=1 << 70, three={1: object}, four={2, 1})
token = "s3cret"
try:
    raise ValueError("boom")
except ValueError:
    structlog.get_logger().exception("failed")
"""


def lines(form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert "s3cret" not in done.stderr
    return done.stderr.splitlines()


def test_json_has_one_object_a_record() -> None:
    records = [json.loads(line) for line in lines("json")]

    assert [(r["level"], r["event"]) for r in records] == [
        ("info", "pod bound"),
        ("warning", "from elsewhere"),
        ("info", "odd"),
        ("error", "failed"),
    ]
    assert records[0].items() >= {"pod": "default/a", "gpus": ["GPU-1"]}.items()
    assert records[1]["logger"] == "gunicorn.error"
    assert "ValueError: boom" in records[3]["exception"]
    assert all(r["timestamp"].endswith("Z") for r in records)


def test_console_lines_can_be_read_by_people() -> None:
    text = "\n".join(lines("console"))

    assert "pod bound" in text
    assert "default/a" in text
    assert "ValueError: boom" in text
    assert "\x1b" not in text
