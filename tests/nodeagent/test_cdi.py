"""The CDI spec: what is in it, and how the file is kept true."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gpus.model import DeviceId, Gpu, MigInstance
from nodeagent.deviceplugin.cdi import CdiSpec, build_spec
from nodeagent.deviceplugin.driver_files import Roots
from tests.device_nodes import make_device_node

A = Gpu(uuid=DeviceId("GPU-a"), index=0, minor=0)
B = Gpu(uuid=DeviceId("GPU-b"), index=1, minor=3)
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's root with a driver in it; device nodes are made where this is allowed."""
    root = tmp_path / "host"
    libraries = root / _LIBRARIES
    libraries.mkdir(parents=True)
    for name in ("libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so", "libc.so"):
        (libraries / f"{name}.580.95.05").write_bytes(b"ELF")
        (libraries / f"{name}.1").symlink_to(f"{name}.580.95.05")
    (root / "usr/bin").mkdir()
    (root / "usr/bin/nvidia-smi").write_bytes(b"ELF")
    (root / "dev").mkdir()
    (root / "dev/nvidia-uvm").write_bytes(b"a file is no device")
    return root


def _roots(host: Path) -> Roots:
    return Roots(driver=host, dev=host, host=host)


def _device(spec: dict[str, Any], name: str) -> dict[str, Any]:
    found = [device["containerEdits"] for device in spec["devices"] if device["name"] == name]
    return found[0] if found else {}


def test_every_device_says_its_own_name_into_the_container(host: Path) -> None:
    spec = build_spec([A, B], _roots(host))
    assert (spec["cdiVersion"], spec["kind"]) == ("0.5.0", "gpudetour.io/gpu")
    assert _device(spec, "GPU-a")["env"] == ["GPUDETOUR_DEVICE_0=GPU-a"]
    assert _device(spec, "GPU-b")["env"] == ["GPUDETOUR_DEVICE_1=GPU-b"]
    assert spec["containerEdits"]["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]


def test_driver_files_appear_where_they_are_on_the_host(host: Path) -> None:
    mounts = build_spec([A], _roots(host))["containerEdits"]["mounts"]
    by_target = {mount["containerPath"]: mount["hostPath"] for mount in mounts}
    assert by_target == {
        f"/{_LIBRARIES}/{name}.{version}": f"/{_LIBRARIES}/{name}.580.95.05"
        for name in ("libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so")
        for version in ("1", "580.95.05")
    } | {"/usr/bin/nvidia-smi": "/usr/bin/nvidia-smi"}
    assert all("ro" in mount["options"] for mount in mounts)


def test_a_driver_root_inside_the_host_keeps_its_place_on_the_host(host: Path) -> None:
    root = host / "run/nvidia/driver"
    (root / _LIBRARIES).mkdir(parents=True)
    (root / _LIBRARIES / "libcuda.so.1").write_bytes(b"ELF")
    spec = build_spec([A], Roots(driver=root, dev=root, host=host))
    assert spec["containerEdits"]["mounts"][0] == {
        "hostPath": f"/run/nvidia/driver/{_LIBRARIES}/libcuda.so.1",
        "containerPath": f"/{_LIBRARIES}/libcuda.so.1",
        "options": ["ro", "nosuid", "nodev", "bind"],
    }


def test_the_driver_of_a_container_is_found_below_the_hosts_root(tmp_path: Path) -> None:
    folder = tmp_path / "run/nvidia/driver" / _LIBRARIES
    folder.mkdir(parents=True)
    (folder / "libcuda.so.580.95.05").write_bytes(b"ELF")
    (folder / "libcuda.so.1").symlink_to(f"/{_LIBRARIES}/libcuda.so.580.95.05")
    mounts = build_spec([A], _roots(tmp_path))["containerEdits"]["mounts"]
    assert {mount["containerPath"]: mount["hostPath"] for mount in mounts} == {
        f"/{_LIBRARIES}/{name}": f"/run/nvidia/driver/{_LIBRARIES}/libcuda.so.580.95.05"
        for name in ("libcuda.so.1", "libcuda.so.580.95.05")
    }


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("usr/bin/nvidia-cdi-hook", ["nvidia-cdi-hook"]),
        ("usr/bin/nvidia-ctk", ["nvidia-ctk", "hook"]),
    ],
)
def test_the_toolkit_tells_the_linker_where_the_libraries_are(
    host: Path, tool: str, words: list[str]
) -> None:
    assert "hooks" not in build_spec([A], _roots(host))["containerEdits"]
    (host / tool).write_bytes(b"ELF")
    (hook,) = build_spec([A], _roots(host))["containerEdits"]["hooks"]
    assert hook == {
        "hookName": "createContainer",
        "path": f"/{tool}",
        "args": [*words, "update-ldcache", "--folder", f"/{_LIBRARIES}"],
    }


def test_without_device_nodes_and_driver_the_spec_is_still_valid(tmp_path: Path) -> None:
    spec = build_spec([A], _roots(tmp_path))
    assert spec["containerEdits"] == {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}
    assert "deviceNodes" not in _device(spec, "GPU-a")


@pytest.mark.skipif(os.geteuid() != 0, reason="making device nodes needs root")
def test_device_nodes_go_by_minor_number_and_only_if_they_are_devices(host: Path) -> None:
    for name in ("nvidia0", "nvidia3", "nvidiactl"):
        make_device_node(host, name)
    spec = build_spec([A, B], _roots(host))
    assert _device(spec, "GPU-b")["deviceNodes"] == [{"path": "/dev/nvidia3", "permissions": "rw"}]
    assert [node["path"] for node in spec["containerEdits"]["deviceNodes"]] == ["/dev/nvidiactl"]
    elsewhere = build_spec([A], Roots(driver=host, dev=host, host=Path("/")))
    assert _device(elsewhere, "GPU-a")["deviceNodes"] == [
        {"path": "/dev/nvidia0", "permissions": "rw", "hostPath": str(host / "dev/nvidia0")}
    ]


SPLIT = Gpu(
    uuid=DeviceId("GPU-m"),
    index=2,
    minor=5,
    mig_enabled=True,
    mig=(
        MigInstance(uuid=DeviceId("MIG-1"), profile="3g", gpu_instance=1, compute_instance=0),
        MigInstance(
            uuid=DeviceId("MIG-GPU-m/2/0"), profile="1g", gpu_instance=2, compute_instance=0
        ),
    ),
)


def test_an_instance_brings_its_gpu_and_its_two_capabilities(host: Path) -> None:
    minors = host / "proc/driver/nvidia-caps/mig-minors"
    minors.parent.mkdir(parents=True)
    minors.write_text(
        "config 1\nmonitor 2\ngpu5/gi1/access 30\ngpu5/gi1/ci0/access 31\n"
        "gpu5/gi2/access 39\ngpu5/gi2/ci0/access 40\ngpu0/gi1/access 3\ngarbage\n"
    )
    for name in ("nvidia5", "nvidia-caps/nvidia-cap30", "nvidia-caps/nvidia-cap31"):
        make_device_node(host, name)
    spec = build_spec([SPLIT], _roots(host))
    # Of the other one the nodes are missing: a container could not use it.
    assert [device["name"] for device in spec["devices"]] == ["GPU-m", "MIG-1"]
    edits = _device(spec, "MIG-1")
    assert edits["env"] == ["GPUDETOUR_DEVICE_2_0=MIG-1"]
    assert [node["path"] for node in edits["deviceNodes"]] == [
        "/dev/nvidia5", "/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31",
    ]  # fmt: skip

    for name in ("nvidia-cap39", "nvidia-cap40"):
        make_device_node(host, f"nvidia-caps/{name}")
    written = CdiSpec(host / "cdi", _roots(host))
    written.write([SPLIT])
    # CDI takes no slash in a name, and drivers before 470 write one.
    assert written.names[DeviceId("MIG-GPU-m/2/0")] == "gpudetour.io/gpu=MIG-GPU-m_2_0"


def test_names_that_cdi_does_not_take_are_left_out(tmp_path: Path) -> None:
    odd = Gpu(uuid=DeviceId("GPU a"), index=3)
    assert [d["name"] for d in build_spec([A, odd], _roots(tmp_path))["devices"]] == ["GPU-a"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    spec = CdiSpec(tmp_path, _roots(tmp_path))
    (tmp_path / f".{spec.path.name}.x3k2").write_text("half of a sp")
    (tmp_path / "nvidia.yaml").write_text("somebody else's")
    spec.write([A])
    assert sorted(path.name for path in tmp_path.iterdir()) == [spec.path.name, "nvidia.yaml"]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cdi"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        spec = CdiSpec(folder, _roots(tmp_path))
        spec.write([A])
        before = spec.path.read_bytes()
        with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))
        with pytest.raises(OSError, match="No space left"):
            spec.write([A, B])
        assert spec.names == {}
        assert spec.path.read_bytes() == before
        (folder / "filler").unlink()
        assert spec.write([A, B])
        assert len(spec.names) == 2
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            spec.write([A])
        assert len(json.loads(spec.path.read_bytes())["devices"]) == 2
    finally:
        subprocess.run(["umount", folder], check=True)


def test_the_file_is_written_once_and_follows_the_devices(tmp_path: Path) -> None:
    spec = CdiSpec(tmp_path / "cdi", _roots(tmp_path))
    assert spec.write([A, B])
    assert spec.names == {
        "GPU-a": "gpudetour.io/gpu=GPU-a",
        "GPU-b": "gpudetour.io/gpu=GPU-b",
    }
    before = spec.path.stat()
    assert not spec.write([A, B])
    assert spec.path.stat().st_ino == before.st_ino
    assert stat.S_IMODE(before.st_mode) == 0o644

    assert spec.write([B])
    assert spec.names == {"GPU-b": "gpudetour.io/gpu=GPU-b"}
    assert [d["name"] for d in json.loads(spec.path.read_bytes())["devices"]] == ["GPU-b"]
    assert [path.name for path in spec.path.parent.iterdir()] == [spec.path.name]

    assert spec.write([])
    assert spec.names == {}
    assert not spec.path.exists()
    assert not spec.write([])


def test_a_spec_edited_by_hand_is_restored(tmp_path: Path) -> None:
    spec = CdiSpec(tmp_path, _roots(tmp_path))
    spec.write([A])
    good = spec.path.read_bytes()
    spec.path.write_text("{}")
    assert spec.write([A])
    assert spec.path.read_bytes() == good


def test_a_folder_that_cannot_be_written_offers_no_names(tmp_path: Path) -> None:
    folder = tmp_path / "cdi"
    spec = CdiSpec(folder, _roots(tmp_path))
    spec.write([A])
    spec.path.unlink()
    folder.rmdir()
    folder.write_text("a file stands in the way")
    with pytest.raises(OSError, match="cdi"):
        spec.write([A, B])
    assert spec.names == {}
