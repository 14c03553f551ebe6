"""A device plugin of somebody else: `python -m localcluster.foreignplugin`.

It stands in for NVIDIA's plugin with the `envvar` strategy: it registers once, hands out UUIDs in
`NVIDIA_VISIBLE_DEVICES`, never looks at a GPU and never comes back. Killing it is its purpose.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import grpc

from nodeagent.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc

_VERSION = "v1beta1"
_RESOURCE = "nvidia.com/gpu"
_SOCKET = "nvidia-gpu.sock"


class EnvPlugin(api_pb2_grpc.DevicePluginServicer):  # type: ignore[misc]  # generated, untyped
    """Serves a fixed list of devices by environment variable."""

    def __init__(self, devices: tuple[str, ...]) -> None:
        self._devices = devices
        self._stop = threading.Event()

    def GetDevicePluginOptions(  # noqa: N802 - the protocol's name
        self, _request: api_pb2.Empty, _context: grpc.ServicerContext
    ) -> api_pb2.DevicePluginOptions:
        """No options."""
        return api_pb2.DevicePluginOptions()

    def ListAndWatch(  # noqa: N802
        self, _request: api_pb2.Empty, context: grpc.ServicerContext
    ) -> Iterator[api_pb2.ListAndWatchResponse]:
        """Send all devices as healthy, once."""
        context.add_callback(self._stop.set)
        devices = [api_pb2.Device(ID=device, health="Healthy") for device in self._devices]
        yield api_pb2.ListAndWatchResponse(devices=devices)
        self._stop.wait()

    def Allocate(  # noqa: N802
        self, request: api_pb2.AllocateRequest, _context: grpc.ServicerContext
    ) -> api_pb2.AllocateResponse:
        """Name the devices in the variable that the container toolkit reads."""
        return api_pb2.AllocateResponse(
            container_responses=[
                api_pb2.ContainerAllocateResponse(
                    envs={"NVIDIA_VISIBLE_DEVICES": ",".join(asked.devices_ids)}
                )
                for asked in request.container_requests
            ]
        )


@click.command()
@click.option("--device-plugin-dir", type=click.Path(path_type=Path), required=True)
@click.option("--device", "devices", multiple=True, required=True, help="UUID; may be repeated.")
def main(device_plugin_dir: Path, devices: tuple[str, ...]) -> None:
    """Serve kubelet until killed."""
    socket = device_plugin_dir / _SOCKET
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(4))
    api_pb2_grpc.add_DevicePluginServicer_to_server(EnvPlugin(devices), server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    with grpc.insecure_channel(f"unix://{device_plugin_dir / 'kubelet.sock'}") as channel:
        register = api_pb2.RegisterRequest(
            version=_VERSION, endpoint=_SOCKET, resource_name=_RESOURCE
        )
        api_pb2_grpc.RegistrationStub(channel).Register(register, timeout=10)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
