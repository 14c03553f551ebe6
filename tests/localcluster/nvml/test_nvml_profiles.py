"""Each profile, as the real pynvml sees it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from localcluster.nvml.description import Process
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from localcluster.nvml.profiles import UnknownProfileError, load_profile, profile_names

Start = Callable[[str], Machine]

GPU_READERS: list[Callable[[Any], object]] = [
    pynvml.nvmlDeviceGetName,
    pynvml.nvmlDeviceGetUUID,
    pynvml.nvmlDeviceGetIndex,
    pynvml.nvmlDeviceGetMinorNumber,
    pynvml.nvmlDeviceGetPciInfo,
    pynvml.nvmlDeviceGetBrand,
    pynvml.nvmlDeviceGetArchitecture,
    pynvml.nvmlDeviceGetCudaComputeCapability,
    pynvml.nvmlDeviceGetDisplayActive,
    pynvml.nvmlDeviceGetDisplayMode,
    pynvml.nvmlDeviceGetPersistenceMode,
    pynvml.nvmlDeviceGetComputeMode,
    pynvml.nvmlDeviceGetVirtualizationMode,
    pynvml.nvmlDeviceGetMemoryInfo,
    pynvml.nvmlDeviceGetBAR1MemoryInfo,
    pynvml.nvmlDeviceGetPowerUsage,
    pynvml.nvmlDeviceGetEnforcedPowerLimit,
    pynvml.nvmlDeviceGetPowerState,
    pynvml.nvmlDeviceGetCurrentClocksEventReasons,
    pynvml.nvmlDeviceGetComputeRunningProcesses,
    pynvml.nvmlDeviceGetGraphicsRunningProcesses,
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
    pynvml.nvmlDeviceGetSupportedEventTypes,
    pynvml.nvmlDeviceGetMaxMigDeviceCount,
    pynvml.nvmlDeviceIsMigDeviceHandle,
]


def not_supported(call: Callable[..., object], *arguments: object) -> bool:
    try:
        call(*arguments)
    except pynvml.NVMLError_NotSupported:
        return True
    return False


def handles() -> list[Any]:
    return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_enumerates_with_all_its_facts(start: Start, profile: str) -> None:
    machine = start(profile)
    wanted = load_profile(profile)
    assert pynvml.nvmlSystemGetDriverVersion() == wanted.driver
    major, minor = map(int, wanted.cuda.split("."))
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 1000 * major + 10 * minor
    assert pynvml.nvmlSystemGetNVMLVersion() == f"{major}.{wanted.driver}"
    found = handles()
    assert [pynvml.nvmlDeviceGetUUID(h) for h in found] == list(machine.uuids)
    for index, handle in enumerate(found):
        for read in GPU_READERS:
            read(handle)
        assert pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU) > 0
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        bus_id = pynvml.nvmlDeviceGetPciInfo(handle).busId
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == index
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(bus_id)) == index


def test_the_seed_machine_is_one_rtx_5060_ti(start: Start) -> None:
    start("rtx-5060-ti")
    (handle,) = handles()
    assert pynvml.nvmlSystemGetDriverVersion() == "580.95.05"
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13000
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA GeForce RTX 5060 Ti"
    assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (12, 0)
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_BLACKWELL
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == 16311 << 20
    assert pynvml.nvmlDeviceGetPciInfo(handle).busId == "00000000:01:00.0"
    assert pynvml.nvmlDeviceGetPciInfo(handle).pciDeviceId == 0x2D0410DE


def test_geforce_cards_refuse_what_real_ones_refuse(start: Start) -> None:
    start("2x-rtx-4090")
    for handle in handles():
        assert not_supported(pynvml.nvmlDeviceGetSerial, handle)
        assert not_supported(pynvml.nvmlDeviceGetMigMode, handle)
        assert not_supported(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, 0)
        assert not_supported(pynvml.nvmlDeviceGetEccMode, handle)
        assert not_supported(pynvml.nvmlDeviceGetTotalEccErrors, handle, 1, 0)
        assert not_supported(pynvml.nvmlDeviceGetRemappedRows, handle)
        assert not_supported(pynvml.nvmlDeviceGetNvLinkState, handle, 0)
        assert not_supported(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
        assert not_supported(pynvml.nvmlDeviceGetNumaNodeId, handle)
        fabric = pynvml.c_nvmlGpuFabricInfo_v2_t()
        assert not_supported(pynvml.nvmlDeviceGetGpuFabricInfoV, handle, ctypes.byref(fabric))
        (value,) = pynvml.nvmlDeviceGetFieldValues(
            handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        )
        assert value.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 0
        assert pynvml.nvmlDeviceGetFanSpeed(handle) == 0


def test_data_centre_cards_answer_them(start: Start) -> None:
    start("8x-h100")
    first, *_, last = found = handles()
    assert len(found) == 8
    assert pynvml.nvmlDeviceGetSerial(first).isdigit()
    assert pynvml.nvmlDeviceGetEccMode(first) == [1, 1]
    assert pynvml.nvmlDeviceGetTotalEccErrors(first, 1, 1) == 0
    assert pynvml.nvmlDeviceGetRemappedRows(first) == (0, 0, 0, 0)
    assert pynvml.nvmlDeviceGetMigMode(first) == [0, 0]
    assert not_supported(pynvml.nvmlDeviceGetFanSpeed, first)
    links, action = pynvml.nvmlDeviceGetFieldValues(
        first,
        [pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION],
    )
    assert (links.nvmlReturn, links.value.uiVal) == (0, 18)
    assert (action.nvmlReturn, action.value.uiVal) == (0, 0)
    fabric = pynvml.c_nvmlGpuFabricInfo_v2_t()
    pynvml.nvmlDeviceGetGpuFabricInfoV(last, ctypes.byref(fabric))
    assert fabric.state == pynvml.NVML_GPU_FABRIC_STATE_COMPLETED


def test_h100_are_joined_by_switches_and_split_over_two_numa_nodes(start: Start) -> None:
    machine = start("8x-h100")
    found = handles()
    for link in range(18):
        assert pynvml.nvmlDeviceGetNvLinkState(found[0], link) == 1
        kind = pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(found[0], link)
        assert kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH
    assert not_supported(pynvml.nvmlDeviceGetNvLinkState, found[0], 18)
    ancestor = pynvml.nvmlDeviceGetTopologyCommonAncestor
    assert ancestor(found[0], found[3]) == pynvml.NVML_TOPOLOGY_NODE
    assert ancestor(found[0], found[4]) == pynvml.NVML_TOPOLOGY_SYSTEM
    nvlink = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    assert pynvml.nvmlDeviceGetP2PStatus(found[0], found[7], nvlink) == pynvml.NVML_P2P_STATUS_OK
    assert list(pynvml.nvmlDeviceGetMemoryAffinity(found[3], 1, 0)) == [0b01]
    assert list(pynvml.nvmlDeviceGetMemoryAffinity(found[4], 1, 0)) == [0b10]
    assert pynvml.nvmlDeviceGetCpuAffinity(found[0], 4)[0] == (1 << 56) - 1
    assert pynvml.nvmlDeviceGetCpuAffinity(found[4], 4)[0] == 0xFF << 56
    sysfs = machine.driver_root / "sys/bus/pci/devices/0000:9d:00.0"
    assert (sysfs / "numa_node").read_text() == "1\n"
    assert (sysfs / "class").read_text() == "0x030200\n"


def test_a100_without_switches_name_their_peers(start: Start) -> None:
    start("4x-a100")
    found = handles()
    peers = [pynvml.nvmlDeviceGetNvLinkRemotePciInfo(found[0], link).busId for link in range(12)]
    others = [pynvml.nvmlDeviceGetPciInfo(handle).busId for handle in found[1:]]
    assert sorted(peers) == sorted(others * 4)


def test_a_split_a100_shows_its_mig_devices(start: Start) -> None:
    machine = start("a100-mig")
    split, whole = handles()
    assert pynvml.nvmlDeviceGetMigMode(split) == [1, 1]
    assert pynvml.nvmlDeviceGetMigMode(whole) == [0, 0]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(split) == 7
    devices = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(split, i) for i in range(3)]
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(split, 3)
    assert tuple(pynvml.nvmlDeviceGetUUID(d) for d in devices) == machine.mig_uuids
    assert pynvml.nvmlDeviceGetName(devices[0]) == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    slices = [pynvml.nvmlDeviceGetAttributes_v2(d).gpuInstanceSliceCount for d in devices]
    assert slices == [3, 2, 1]
    assert pynvml.nvmlDeviceGetAttributes_v2(devices[2]).memorySizeMB == 4864
    assert pynvml.nvmlDeviceGetMemoryInfo(devices[2]).total == 4864 << 20
    assert [pynvml.nvmlDeviceGetGpuInstanceId(d) for d in devices] == [1, 3, 7]
    parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(devices[1])
    assert pynvml.nvmlDeviceGetUUID(parent) == machine.uuids[0]
    assert pynvml.nvmlDeviceIsMigDeviceHandle(devices[0]).value == 1
    assert not_supported(pynvml.nvmlDeviceGetUtilizationRates, split)
    assert pynvml.nvmlDeviceGetNvLinkState(split, 0) == 0


def test_processes_are_listed_by_kind_and_by_mig_device(start: Start) -> None:
    machine = start("a100-mig")
    machine.processes(
        machine.uuids[0],
        [Process(pid=4242, memory=1 << 30, name="/usr/bin/python3 train.py", gpu_instance=1)],
    )
    split, _ = handles()
    (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(split)
    assert (process.pid, process.usedGpuMemory, process.gpuInstanceId) == (4242, 1 << 30, 1)
    assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(split) == []
    three, two, _ = (pynvml.nvmlDeviceGetMigDeviceHandleByIndex(split, i) for i in range(3))
    assert len(pynvml.nvmlDeviceGetComputeRunningProcesses(three)) == 1
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(two) == []
    assert pynvml.nvmlDeviceGetMemoryInfo(three).used == 1 << 30
    assert pynvml.nvmlSystemGetProcessName(4242) == "/usr/bin/python3 train.py"


def test_two_nodes_never_share_a_uuid_and_a_rebuilt_node_keeps_its_own(tmp_path: Path) -> None:
    first = install(tmp_path / "a", "a100-mig", node="a")
    second = install(tmp_path / "b", "a100-mig", node="b")
    assert not {*first.uuids, *first.mig_uuids} & {*second.uuids, *second.mig_uuids}
    assert install(tmp_path / "c", "a100-mig", node="a").uuids == first.uuids


def test_an_unknown_profile_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownProfileError, match="rtx-5060-ti"):
        install(tmp_path, "9x-h100", node="node1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("profile", profile_names())
def test_the_kernel_files_agree_with_the_library(tmp_path: Path, profile: str) -> None:
    machine = install(tmp_path, profile, node="node1")
    driver = load_profile(profile).driver
    assert driver in (tmp_path / "proc/driver/nvidia/version").read_text()
    assert machine.library.resolve().name == f"libnvidia-ml.so.{driver}"
    for gpu in machine.gpus:
        shown = (tmp_path / "proc/driver/nvidia/gpus" / gpu.bdf / "information").read_text()
        assert gpu.uuid in shown
        assert (tmp_path / "sys/bus/pci/devices" / gpu.bdf / "vendor").read_text() == "0x10de\n"
