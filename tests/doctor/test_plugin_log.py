"""What a log alone tells."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import diagnose
from doctor.facts.facts import Facts
from doctor.findings import Outcome
from tests.doctor.errors import (
    ERROR_1,
    ERROR_1_IN_0_20,
    ERROR_1_WITH_FAIL,
    ERROR_2,
    ERROR_4,
    ERROR_5,
    ERROR_6,
)
from tests.doctor.nodes import assert_shell


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What stands in a log, and the check that must know it."""

    log: str
    id: str
    mend: str


@pytest.mark.parametrize(
    "line",
    [
        Line(log=ERROR_1, id="log-incompatible-strategy", mend="runtimeClassName=nvidia"),
        Line(log=ERROR_1_IN_0_20, id="log-incompatible-strategy", mend="runtimeClassName=nvidia"),
        Line(log=ERROR_1_WITH_FAIL, id="log-incompatible-strategy", mend="nvidiaDriverRoot=/"),
        Line(log=ERROR_2, id="log-runc", mend="install -y runc"),
        Line(
            log=ERROR_4.format('"nvml"'), id="log-strategy", mend="device-discovery-strategy=nvml"
        ),
        Line(log=ERROR_4.format("cdi"), id="log-strategy", mend="cdi-cri"),
        Line(log=ERROR_5, id="log-config", mend="timeSlicing"),
        Line(log=ERROR_6, id="log-library-conflict", mend="LD_LIBRARY_PATH"),
        Line(
            log="nvml init failed: Driver/library version mismatch\n",
            id="log-mismatch",
            mend="reboot",
        ),
        Line(
            log="Failed to initialize NVML: ERROR_DRIVER_NOT_LOADED\n",
            id="log-driver",
            mend="modprobe nvidia",
        ),
        Line(
            log='failed to get sandbox runtime: no runtime for "nvidia" is configured\n',
            id="log-no-handler",
            mend="nvidia-ctk runtime configure",
        ),
        Line(
            log="CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0\n",
            id="log-cdi-unresolvable",
            mend="nvidia-ctk cdi list",
        ),
        Line(
            log="No devices found. Waiting indefinitely.\n", id="log-no-devices", mend="nvidia-smi"
        ),
        Line(
            log="Failed to initialize NVML: Insufficient Permissions\n",
            id="log-permission",
            mend="privileged",
        ),
        Line(
            log="rpc error: code = Unimplemented desc = unknown service v1beta1.Registration\n",
            id="log-registration",
            mend="kubelet.sock",
        ),
    ],
    ids=lambda line: f"{line.id}: {line.log[:30]!r}",
)
def test_a_log_alone_tells_the_cause(line: Line) -> None:
    diagnosis = diagnose(Facts(plugin_log=f"I1218 main.go:42] Starting\n{line.log}"), CHECKS)

    (cause,) = diagnosis.causes
    assert cause.check.id == line.id
    assert any(line.mend in command for command in cause.result.mend)
    assert_shell(cause.result.mend)
    assert cause.result.saw in line.log or "…" in cause.result.saw


def test_error_1_waiting_for_devices_follows_from_the_strategy() -> None:
    diagnosis = diagnose(Facts(plugin_log=ERROR_1), CHECKS)

    assert [found.check.id for found in diagnosis.of(Outcome.BROKEN)] == [
        "log-incompatible-strategy",
        "log-no-devices",
    ]
    assert diagnosis.consequences[0].because_of == ("log-incompatible-strategy",)
