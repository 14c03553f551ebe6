"""What the control file does to a process that has the library loaded."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pynvml
import pytest

from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine, UnknownGpuError

Start = Callable[[str], Machine]

XID = pynvml.nvmlEventTypeXidCriticalError


def handle(index: int) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def again() -> None:
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()


def registered(*indices: int) -> Any:
    events = pynvml.nvmlEventSetCreate()
    for index in indices:
        pynvml.nvmlDeviceRegisterEvents(handle(index), XID, events)
    return events


def test_a_lost_gpu_answers_lost_on_handle_and_calls_while_others_go_on(start: Start) -> None:
    machine = start("2x-rtx-4090")
    first, second = handle(0), handle(1)
    machine.lose(machine.uuids[0])
    calls: list[Callable[[], object]] = [
        lambda: pynvml.nvmlDeviceGetName(first),
        lambda: handle(0),
        lambda: pynvml.nvmlDeviceGetHandleByUUID(machine.uuids[0]),
        lambda: pynvml.nvmlDeviceGetTopologyCommonAncestor(second, first),
    ]
    for call in calls:
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            call()
    assert pynvml.nvmlDeviceGetUUID(second) == machine.uuids[1]
    assert pynvml.nvmlDeviceGetCount() == 2
    again()
    assert pynvml.nvmlDeviceGetCount() == 2
    machine.restore(machine.uuids[0])
    assert pynvml.nvmlDeviceGetUUID(handle(0)) == machine.uuids[0]


def test_a_gpu_off_the_bus_is_lost_and_after_init_not_counted(start: Start) -> None:
    machine = start("2x-rtx-4090")
    machine.fall_off_bus(machine.uuids[0])
    assert pynvml.nvmlDeviceGetCount() == 2
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        handle(0)
    again()
    assert pynvml.nvmlDeviceGetCount() == 1
    assert pynvml.nvmlDeviceGetUUID(handle(0)) == machine.uuids[1]
    machine.restore(machine.uuids[0])
    assert pynvml.nvmlDeviceGetCount() == 1
    again()
    assert pynvml.nvmlDeviceGetCount() == 2


def test_an_added_gpu_is_seen_after_the_next_init_only(start: Start) -> None:
    machine = start("rtx-5060-ti")
    added = machine.add_gpu("rtx-4090")
    assert pynvml.nvmlDeviceGetCount() == 1
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetHandleByUUID(added)
    again()
    assert pynvml.nvmlDeviceGetUUID(handle(1)) == added
    assert pynvml.nvmlDeviceGetName(handle(1)) == "NVIDIA GeForce RTX 4090"
    machine.remove_gpu(added)
    again()
    assert pynvml.nvmlDeviceGetCount() == 1
    assert len(list((machine.driver_root / "sys/bus/pci/devices").iterdir())) == 1


@pytest.mark.parametrize("code", [9, 17, 18, 999])
def test_init_fails_with_the_code_that_was_asked_for(
    unstarted: Callable[[str], Machine], code: int
) -> None:
    machine = unstarted("rtx-5060-ti")
    machine.fail_init(code)
    with pytest.raises(pynvml.NVMLError) as error:
        pynvml.nvmlInit()
    assert error.value.value == code
    machine.fail_init(None)
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


def test_counters_and_facts_change_in_a_running_process(start: Start) -> None:
    machine = start("8x-h100")
    first = machine.uuids[0]
    machine.ecc(first, volatile=2, aggregate=7)
    machine.facts(
        first,
        temperature=91,
        memory_used=3 << 30,
        utilization_gpu=55,
        remapped_pending=1,
        remapped_failure=1,
        recovery_action=2,
    )
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle(0), 1, 0) == 2
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle(0), 1, 1) == 7
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle(0), 0, 0) == 0
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle(1), 1, 0) == 0
    assert pynvml.nvmlDeviceGetTemperature(handle(0), 0) == 91
    assert pynvml.nvmlDeviceGetMemoryInfo(handle(0), pynvml.nvmlMemory_v2).used == 3 << 30
    assert pynvml.nvmlDeviceGetUtilizationRates(handle(0)).gpu == 55
    assert pynvml.nvmlDeviceGetRemappedRows(handle(0)) == (0, 0, 1, 1)
    (action,) = pynvml.nvmlDeviceGetFieldValues(
        handle(0), [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
    )
    assert action.value.uiVal == pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT


def test_a_gpu_can_be_split_while_programs_run(start: Start) -> None:
    machine = start("a100-mig")
    machine.split(machine.uuids[1], ["1g.5gb", "1g.5gb"])
    assert pynvml.nvmlDeviceGetMigMode(handle(1)) == [1, 1]
    names = [
        pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle(1), i))
        for i in range(2)
    ]
    assert names == ["NVIDIA A100-SXM4-40GB MIG 1g.5gb"] * 2
    assert len(set(machine.mig_uuids)) == 5
    machine.split(machine.uuids[1], [])
    assert pynvml.nvmlDeviceGetMigMode(handle(1)) == [0, 0]


def test_an_xid_is_delivered_once_to_each_set_that_registered_before(start: Start) -> None:
    machine = start("2x-rtx-4090")
    machine.xid(machine.uuids[0], 13)
    both, second_only = registered(0, 1), registered(1)
    machine.xid(machine.uuids[0], 79)
    machine.xid(machine.uuids[1], 48)
    first, second = (pynvml.nvmlEventSetWait_v2(both, 1000) for _ in range(2))
    assert (first.eventData, first.eventType) == (79, XID)
    assert pynvml.nvmlDeviceGetUUID(first.device) == machine.uuids[0]
    assert first.gpuInstanceId == 0xFFFFFFFF
    assert second.eventData == 48
    assert pynvml.nvmlEventSetWait_v2(second_only, 1000).eventData == 48
    for events in (both, second_only):
        with pytest.raises(pynvml.NVMLError_Timeout):
            pynvml.nvmlEventSetWait_v2(events, 20)
        pynvml.nvmlEventSetFree(events)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlEventSetWait_v2(both, 0)


def test_a_wait_lasts_its_timeout_and_ends_early_for_an_event(start: Start) -> None:
    machine = start("rtx-5060-ti")
    events = registered(0)
    began = time.monotonic()
    with pytest.raises(pynvml.NVMLError_Timeout):
        pynvml.nvmlEventSetWait_v2(events, 300)
    assert 0.29 <= time.monotonic() - began < 5
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pynvml.nvmlEventSetWait_v2, events, 60_000)
        machine.xid(machine.uuids[0], 31)
        assert waiting.result(timeout=10).eventData == 31
    pynvml.nvmlEventSetFree(events)


def test_a_wait_tells_of_a_lost_gpu_and_ends_at_shutdown(start: Start) -> None:
    machine = start("2x-rtx-4090")
    events = registered(0, 1)
    machine.lose(machine.uuids[1])
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlEventSetWait_v2(events, 60_000)
    machine.restore(machine.uuids[1])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pynvml.nvmlEventSetWait_v2, events, 60_000)
        again()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            waiting.result(timeout=10)


def test_events_that_a_card_lacks_are_refused(start: Start) -> None:
    start("rtx-5060-ti")
    events = pynvml.nvmlEventSetCreate()
    supported = pynvml.nvmlDeviceGetSupportedEventTypes(handle(0))
    assert supported & XID
    assert not supported & pynvml.nvmlEventTypeDoubleBitEccError
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceRegisterEvents(
            handle(0), XID | pynvml.nvmlEventTypeDoubleBitEccError, events
        )
    pynvml.nvmlEventSetFree(events)


@pytest.mark.parametrize("function", ["nvmlDeviceGetMemoryInfo", "*"])
def test_a_hanging_call_blocks_until_released(start: Start, function: str) -> None:
    machine = start("2x-rtx-4090")
    first = handle(0)
    machine.hang(function)
    answers: list[int] = []
    caller = Thread(target=lambda: answers.append(pynvml.nvmlDeviceGetMemoryInfo(first).total))
    caller.start()
    if function != "*":
        assert pynvml.nvmlDeviceGetName(first) == "NVIDIA GeForce RTX 4090"
    caller.join(0.2)
    assert caller.is_alive()
    machine.release()
    caller.join(10)
    assert answers == [24564 << 20]


def test_a_function_can_fail_for_one_gpu(start: Start) -> None:
    machine = start("2x-rtx-4090")
    machine.fail("nvmlDeviceGetMemoryInfo", 999, uuid=machine.uuids[1])
    assert pynvml.nvmlDeviceGetMemoryInfo(handle(0)).total
    with pytest.raises(pynvml.NVMLError_Unknown):
        pynvml.nvmlDeviceGetMemoryInfo(handle(1))
    machine.release()
    assert pynvml.nvmlDeviceGetMemoryInfo(handle(1)).total


def test_the_library_can_lie(start: Start) -> None:
    machine = start("2x-rtx-4090")
    machine.report_count(4_000_000_000)
    assert pynvml.nvmlDeviceGetCount() == 4_000_000_000
    machine.facts(machine.uuids[0], name="\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        pynvml.nvmlDeviceGetName(handle(0))
    machine.facts(machine.uuids[0], uuid=machine.uuids[1])
    assert pynvml.nvmlDeviceGetUUID(handle(0)) == pynvml.nvmlDeviceGetUUID(handle(1))
    machine.reorder(machine.uuids[::-1])
    again()
    assert pynvml.nvmlDeviceGetMinorNumber(handle(0)) == 1


def test_threads_may_call_while_the_machine_changes(start: Start) -> None:
    machine = start("8x-h100")
    last = machine.uuids[7]

    def read_all(_round: int) -> int:
        seen = 0
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                device = handle(index)
                assert pynvml.nvmlDeviceGetUUID(device) == machine_uuids[index]
                seen += pynvml.nvmlDeviceGetMemoryInfo(device).total > 0
            except pynvml.NVMLError_GpuIsLost:
                assert index == 7
        return seen

    machine_uuids = machine.uuids
    with ThreadPoolExecutor(8) as pool:
        reading = pool.map(read_all, range(400))
        for _ in range(25):
            machine.lose(last)
            machine.restore(last)
        assert set(reading) <= {7, 8}


def test_init_is_counted(start: Start) -> None:
    start("rtx-5060-ti")
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetCount() == 1


def test_a_new_driver_is_a_new_file_under_the_same_name(start: Start) -> None:
    machine = start("rtx-5060-ti")
    old = machine.library.resolve()
    replaced = install(machine.driver_root, "2x-rtx-4090", node="node1")
    assert replaced.library == machine.library
    assert replaced.library.resolve() != old
    assert not old.exists()


def test_unknown_gpus_facts_and_mig_profiles_are_refused(start: Start) -> None:
    machine = start("rtx-5060-ti")
    with pytest.raises(UnknownGpuError, match=machine.uuids[0]):
        machine.lose("GPU-none")
    with pytest.raises(ValueError, match="temperature"):
        machine.facts(machine.uuids[0], tmperature=3)
    with pytest.raises(ValueError, match="no MIG"):
        machine.split(machine.uuids[0], ["1g.5gb"])
    assert pynvml.nvmlDeviceGetCount() == 1


def test_a_broken_control_file_leaves_the_last_good_machine(start: Start) -> None:
    machine = start("rtx-5060-ti")
    control = machine.library.parent / "gpudetour-nvml.control"
    control.write_text("gpu 99\n")
    assert pynvml.nvmlDeviceGetName(handle(0)) == "NVIDIA GeForce RTX 5060 Ti"


def test_the_command_changes_the_machine_of_a_running_process(start: Start) -> None:
    machine = start("rtx-5060-ti")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "localcluster.nvml", str(machine.driver_root), *words],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
        )

    assert command("lose", machine.uuids[0]).returncode == 0
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        handle(0)
    assert "lost" in command("list").stdout
    wrong = command("xid", "GPU-none", "79")
    assert wrong.returncode != 0
    assert machine.uuids[0] in wrong.stderr
