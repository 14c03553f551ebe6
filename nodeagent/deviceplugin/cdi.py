"""The CDI spec by which the runtime gives a container the GPUs that kubelet chose.

What is in it is pure (`build_spec`); `CdiSpec` keeps the file true. Format: the Container Device
Interface specification, version 0.5.0, which containerd 1.7 and CRI-O 1.28 read too.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from gpus.model import DeviceId, Gpu
from nodeagent.deviceplugin.allocation import VISIBLE_DEVICES
from nodeagent.deviceplugin.driver_files import (
    HostFile,
    Roots,
    control_nodes,
    driver_files,
    hook_command,
    nodes_of,
)

VERSION = "0.5.0"
KIND = "gpudetour.io/gpu"
#: CDI's own convention: vendor, class.
FILE_NAME = "gpudetour.io-gpu.json"

#: What CDI takes as a device name since 0.5.0.
_DEVICE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


def qualified_name(device: DeviceId) -> str:
    """Return the name by which the runtime finds a device in the spec."""
    # Drivers before 470 name instances MIG-GPU-<uuid>/<gi>/<ci>, and CDI takes no slash.
    return f"{KIND}={device.replace('/', '_')}"


def build_spec(gpus: Iterable[Gpu], roots: Roots) -> dict[str, Any]:
    """Return the spec for these GPUs and their MIG instances.

    A container can check what it was given by its variables `GPUDETOUR_DEVICE_<index>`, or
    `GPUDETOUR_DEVICE_<index>_<number>` of an instance, which hold UUIDs.
    `NVIDIA_VISIBLE_DEVICES=void` keeps the NVIDIA runtime from adding GPUs of its own choice to
    those named here (nvidia-container-toolkit pkg/nvcdi does the same). An instance without its
    device nodes is left out: it could not be used.
    """
    devices = [entry for gpu in gpus for entry in _entries(gpu, roots)]
    common: dict[str, Any] = {"env": [f"{VISIBLE_DEVICES}=void"]}
    if nodes := control_nodes(roots):
        common["deviceNodes"] = [_device_node(node) for node in nodes]
    if files := driver_files(roots):
        common["mounts"] = [_mount(file) for file in files]
        common |= _hooks(files, roots)
    return {"cdiVersion": VERSION, "kind": KIND, "devices": devices, "containerEdits": common}


class CdiSpec:
    """The file that holds the spec.

    Invariant: `names` are exactly the devices that the file on disk describes, as far as this
    process wrote it; the file is whole at every moment.
    """

    def __init__(self, folder: Path, roots: Roots) -> None:
        self.path = folder / FILE_NAME
        self._roots = roots
        self.names: Mapping[DeviceId, str] = {}

    def write(self, gpus: Iterable[Gpu]) -> bool:
        """Make the file describe these GPUs and no others; returns whether it had to change.

        Raises `OSError` when the folder cannot be written; then no name is offered any more.
        """
        known = list(gpus)
        spec = build_spec(known, self._roots)
        try:
            changed = self._store(spec)
        except OSError:
            self.names = {}
            raise
        described = {f"{KIND}={entry['name']}" for entry in spec["devices"]}
        every = [gpu.uuid for gpu in known] + [each.uuid for gpu in known for each in gpu.mig]
        named = {device: qualified_name(device) for device in every}
        self.names = {device: name for device, name in named.items() if name in described}
        return changed

    def remove(self) -> None:
        """Take the file away: no device is given out by name any more. Raises `OSError`."""
        self.names = {}
        self.path.unlink(missing_ok=True)

    def _store(self, spec: dict[str, Any]) -> bool:
        if not spec["devices"]:  # which CDI refuses
            existed = self.path.exists()
            self.path.unlink(missing_ok=True)
            return existed
        text = msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"
        if self._current() == text:
            return False
        _replace(self.path, text)
        return True

    def _current(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:
            return None


def _hooks(files: Iterable[HostFile], roots: Roots) -> dict[str, Any]:
    """Let the container's linker find the libraries, as NVIDIA's own specs do.

    Where the toolkit is not installed, images find them whose linker looks in those folders.
    """
    folders = dict.fromkeys(
        str(PurePosixPath(file.container_path).parent)
        for file in files
        if ".so" in file.container_path
    )
    path, *words = hook_command(roots) or ("",)
    if not path or not folders:
        return {}
    options = [option for folder in folders for option in ("--folder", folder)]
    return {
        "hooks": [
            {
                "hookName": "createContainer",
                "path": path,
                "args": [*words, "update-ldcache", *options],
            }
        ]
    }


def _entries(gpu: Gpu, roots: Roots) -> Iterator[dict[str, Any]]:
    nodes = nodes_of(roots, gpu)
    variable = f"GPUDETOUR_DEVICE_{gpu.index}"
    yield from _entry(gpu.uuid, variable, nodes.get(gpu.uuid, ()))
    for number, instance in enumerate(gpu.mig):
        if instance.uuid in nodes:
            yield from _entry(instance.uuid, f"{variable}_{number}", nodes[instance.uuid])


def _entry(device: DeviceId, variable: str, nodes: Iterable[HostFile]) -> Iterator[dict[str, Any]]:
    name = qualified_name(device).removeprefix(f"{KIND}=")
    if _DEVICE_NAME.fullmatch(name) is None:
        return
    edits: dict[str, Any] = {"env": [f"{variable}={device}"]}
    if own := [_device_node(node) for node in nodes]:
        edits["deviceNodes"] = own
    yield {"name": name, "containerEdits": edits}


def _device_node(file: HostFile) -> dict[str, str]:
    node = {"path": file.container_path, "permissions": "rw"}
    if file.host_path != file.container_path:
        node["hostPath"] = file.host_path
    return node


def _mount(file: HostFile) -> dict[str, Any]:
    return {
        "hostPath": file.host_path,
        "containerPath": file.container_path,
        "options": ["ro", "nosuid", "nodev", "bind"],
    }


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed here
        left.unlink(missing_ok=True)
    # Runtimes read every *.json and *.yaml of the folder at any moment.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())  # a full disk may be told only now
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
