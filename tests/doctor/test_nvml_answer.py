"""NVML is really asked, in a process of its own, through a library that stands in below pynvml."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import diagnose
from doctor.facts.facts import Facts
from doctor.facts.host import NVML_TIMED_OUT
from doctor.findings import Outcome
from doctor.gather.host import read_host
from doctor.gather.nvml import ask_nvml
from doctor.gather.tree import Tree
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return install(tmp_path, "8x-h100", node="n1")


def test_it_counts_the_gpus(machine: Machine) -> None:
    answer = ask_nvml(machine.driver_root)

    assert answer is not None
    assert (answer.code, answer.gpus) == (0, 8)


@pytest.mark.parametrize("code", [9, 18, 999])
def test_it_tells_why_nvml_does_not_start(machine: Machine, code: int) -> None:
    machine.fail_init(code)

    answer = ask_nvml(machine.driver_root)

    assert answer is not None
    assert answer.code == code
    assert answer.text


def test_a_gpu_that_hangs_does_not_hang_the_doctor(machine: Machine) -> None:
    machine.hang("*")

    answer = ask_nvml(machine.driver_root, timeout=3.0)

    assert answer is not None
    assert answer.code == NVML_TIMED_OUT


def test_a_library_that_is_none_is_told(machine: Machine) -> None:
    machine.library.unlink()
    machine.library.write_bytes(b"\x7fELF\x02" + b"\0" * 100)

    answer = ask_nvml(machine.driver_root)

    assert answer is not None
    assert answer.code != 0


def test_what_nvml_says_stands_beside_what_the_files_say(machine: Machine) -> None:
    tree = Tree(machine.driver_root)
    host = read_host(tree, probe=ask_nvml, run=None, step=lambda _: None)

    findings = {f.check.id: f.result for f in diagnose(Facts(host=host), CHECKS).findings}

    assert findings["gpu-present"].saw.startswith("8 on the PCI bus")
    assert findings["nvml"].outcome is Outcome.OK
    assert findings["nvml"].saw == "NVML lists 8 GPUs"
