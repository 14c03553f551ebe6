"""Telling what admission costs: tables on the terminal, a document in a file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from localcluster.bench.admission_figures import (
    Admission,
    creating_table,
    document_of,
    goals_of,
    serving_table,
)
from localcluster.bench.table import goals_table
from localcluster.files import write_atomically

_WIDTH = 160
_NOTES = """\
Webhook and bare view are asked by closed loops in one process of this machine; the ratio is the
median of those within each round. Pods are created one by one, nobody schedules them; latencies are
those of the whole create, the policies that go with the webhook included."""


def tell_admission(admission: Admission, *, output: Path) -> None:
    """Print tables and goals, and write all of it beside `output`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(serving_table(admission.served))
    console.print(creating_table(admission.created))
    console.print(goals_table(goals_of(admission)))
    target = output.with_name(f"{output.stem}-webhook.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    measured = {
        "served": [asdict(each) for each in admission.served],
        "created": [asdict(each) for each in admission.created],
        **document_of(admission),
    }
    write_atomically(target, json.dumps(measured, indent=2).encode())
    console.print(f"{_NOTES}\nAll of it: {target}")
