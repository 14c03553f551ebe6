"""The part of the benchmark that is about admission: its arithmetic, and a small run of it."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from localcluster.bench.admission_figures import (
    Admission,
    Created,
    Memory,
    Served,
    Speed,
    added_p99,
    creating_table,
    document_of,
    goals_of,
    serving_table,
)
from localcluster.bench.admission_load import Answered, Asking, NotAdmitted, ask_for, ask_times
from tests.certs.making import Mounted, authority, server
from tests.service.process import running

MEBI = 1 << 20


def speed(rate: float, p99: float = 0.01) -> Speed:
    return Speed(rate=rate, p50=p99 / 2, p99=p99, cpu=0.0005)


def served(connections: int, webhook: float, bare: float) -> Served:
    return Served(connections=connections, webhook=speed(webhook), bare=speed(bare))


def created(*, admitted: bool, p99: float, reviews: int = 0) -> Created:
    return Created(
        admitted=admitted,
        gpu=speed(100, p99),
        plain=speed(120, 0.005),
        at_once=200,
        reviews_of_plain=reviews,
    )


def shown(renderable: RenderableType) -> str:
    output = StringIO()
    Console(file=output, width=200).print(renderable)
    return output.getvalue()


def test_the_ratio_is_the_median_of_those_within_each_round() -> None:
    rounds = [served(16, 700, 1000), served(16, 90, 100), served(16, 300, 1000)]
    (goal,) = goals_of(Admission(served=rounds))

    assert goal.value == pytest.approx(0.7)
    assert goal.met
    assert not goals_of(Admission(served=[served(1, 699, 1000)]))[0].met


def test_what_is_added_is_the_difference_of_the_medians() -> None:
    rounds = [
        *(created(admitted=True, p99=p99) for p99 in (0.030, 0.025, 0.5)),
        *(created(admitted=False, p99=p99) for p99 in (0.010, 0.011, 0.3)),
    ]

    assert added_p99(rounds) == pytest.approx(0.019)
    assert [goal.met for goal in goals_of(Admission(created=rounds))] == [True, True]
    assert added_p99(rounds[:3]) is None


def test_a_review_of_a_pod_without_gpus_fails_the_goal() -> None:
    rounds = [
        created(admitted=True, p99=0.01, reviews=1),
        created(admitted=False, p99=0.01),
    ]

    assert [goal.met for goal in goals_of(Admission(created=rounds))] == [True, False]


@pytest.mark.parametrize(
    ("first", "last", "met"), [(90, 92, [True, True]), (90, 151, [False, False])]
)
def test_memory_must_be_small_and_flat(first: int, last: int, met: list[bool]) -> None:
    memory = Memory(after={10_000: first * MEBI, 100_000: last * MEBI})

    assert [goal.met for goal in goals_of(Admission(memory=memory))] == met
    assert document_of(Admission(memory=memory))["memory"] == {
        "10000": first * MEBI,
        "100000": last * MEBI,
    }


def test_nothing_measured_is_no_goal() -> None:
    assert goals_of(Admission()) == []


def test_the_tables_tell_medians() -> None:
    text = shown(serving_table([served(64, 700, 1000), served(1, 500, 1000)]))
    lines = [line.split("│") for line in text.splitlines() if line.startswith("│")]

    assert [cells[1].strip() for cells in lines] == ["1", "64"]
    assert [cells[-2].strip() for cells in lines] == ["0.50", "0.70"]
    both = [created(admitted=True, p99=0.03), created(admitted=False, p99=0.01)]
    assert "30.00" in shown(creating_table(both))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mounted:
    ca = authority()
    mounted = Mounted(tmp_path_factory.mktemp("tls") / "tls")
    mounted.put(server(ca), trusted=ca.certificate)
    return mounted


def asking(port: int, files: Mounted, path: str = "/") -> Asking:
    context = ssl.create_default_context(cafile=files.ca_file)
    return Asking(server=f"https://127.0.0.1:{port}", path=path, body=b"{}", context=context)


def test_a_loop_counts_every_request_and_no_more(files: Mounted) -> None:
    options = {"cert_file": files.cert_file, "key_file": files.key_file, "drain": 0.0}
    with running("tests.service.echo", json.dumps(options)) as process:
        counted = ask_times(asking(process.port(), files), connections=3, times=40)
        timed = ask_for(asking(process.port(), files), connections=2, seconds=0.2)

    assert len(counted.latencies) == 40
    assert counted.latencies == sorted(counted.latencies)
    assert len(timed.latencies) > 0
    assert timed.seconds >= 0.2


def test_quantiles_are_of_what_was_seen() -> None:
    answered = Answered(latencies=[0.1, 0.2, 0.3, 0.4], seconds=2.0)

    assert [answered.quantile(share) for share in (0.0, 0.5, 0.99, 1.0)] == [0.1, 0.3, 0.4, 0.4]
    assert answered.rate == 2


@pytest.mark.controlplane
@pytest.mark.usefixtures("control_plane_parts")
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = ["-m", "localcluster.bench", "--only=webhook", "--quick", f"--output={output}"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Admission over HTTPS" in done.stdout
    written = json.loads((tmp_path / "bench-webhook.json").read_text())
    assert [each["connections"] for each in written["served"]] == [1, 16, 64] * 2
    assert {each["admitted"] for each in written["created"]} == {True, False}
    assert all(each["reviews_of_plain"] == 0 for each in written["created"])
    assert len(written["goals"]) == 7


def test_an_answer_that_is_no_200_ends_the_measuring(files: Mounted) -> None:
    options = {"cert_file": files.cert_file, "key_file": files.key_file, "max_body": 1}
    with (
        running("tests.service.echo", json.dumps(options | {"drain": 0.0})) as process,
        pytest.raises(NotAdmitted, match="413"),
    ):
        ask_times(asking(process.port(), files), connections=1, times=1)
