"""A device plugin of somebody else, as small as one can be: a process that hands over by variable.

It stands in for NVIDIA's plugin with its `envvar` strategy, and is there to be killed. As a program
it serves until then; `Foreign` starts it. Like NVIDIA's, it never notices that kubelet disconnected
it, and it has one name for its socket.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc

from nodeagent.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc

SOCKET = "nvidia-gpu.sock"
_LOCAL = (("grpc.use_local_subchannel_pool", 1),)


class Foreign:
    """The plugin as a child process, registered when the block begins and killed at its end."""

    def __init__(
        self, folder: Path, devices: Sequence[str], *, resource: str = "nvidia.com/gpu"
    ) -> None:
        self.socket = folder / SOCKET
        self._command = [
            sys.executable, str(Path(__file__)), str(self.socket), resource, ",".join(devices),
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line != "registered\n":
            self.kill()
            raise RuntimeError(f"the foreign plugin said {line!r}")
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Die at once; the socket stays behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Answer nothing while the block runs, with every connection open."""
        if self._process is None:
            raise RuntimeError("the plugin does not run")
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)


class _Plugin:
    def __init__(self, devices: list[str]) -> None:
        self._devices = devices

    def GetDevicePluginOptions(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's
        return api_pb2.DevicePluginOptions()

    def ListAndWatch(self, _request: Any, _context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's
        devices = [api_pb2.Device(ID=device, health="Healthy") for device in self._devices]
        yield api_pb2.ListAndWatchResponse(devices=devices)
        threading.Event().wait()

    def GetPreferredAllocation(self, _request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "it said so in its options")

    def PreStartContainer(self, _request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "it said so in its options")

    def Allocate(self, request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's
        responses = [
            api_pb2.ContainerAllocateResponse(
                envs={"NVIDIA_VISIBLE_DEVICES": ",".join(asked.devices_ids)}
            )
            for asked in request.container_requests
        ]
        return api_pb2.AllocateResponse(container_responses=responses)


def main() -> None:
    """Serve and register once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("resource")
    parser.add_argument("devices")
    arguments = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(8))
    plugin = _Plugin([device for device in arguments.devices.split(",") if device])
    api_pb2_grpc.add_DevicePluginServicer_to_server(plugin, server)
    server.add_insecure_port(f"unix://{arguments.socket}")
    server.start()
    kubelet = f"unix://{arguments.socket.parent / 'kubelet.sock'}"
    with grpc.insecure_channel(kubelet, options=_LOCAL) as channel:
        request = api_pb2.RegisterRequest(
            version="v1beta1",
            endpoint=arguments.socket.name,
            resource_name=arguments.resource,
            options=api_pb2.DevicePluginOptions(),
        )
        api_pb2_grpc.RegistrationStub(channel).Register(request, timeout=20)
    print("registered", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
