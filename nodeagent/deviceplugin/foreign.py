"""Whether a device plugin of somebody else serves the GPUs now.

Kubelet does not tell which socket serves which resource, so it is inferred from what kubelet can
give out, which sockets answer, and which are newer than our own registration.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc

from nodeagent.deviceplugin.registration import KUBELET_SOCKET, SOCKET_PREFIX
from nodeagent.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from nodeagent.unix_grpc import dial

#: How NVIDIA's plugin names its sockets (internal/plugin/server.go).
_NVIDIA = "nvidia"
#: Seconds that a plugin may take to answer.
_ANSWER_TIMEOUT = 1.5
#: Seconds after which a plugin that does not answer counts as dead, though kubelet still holds its
#: connection: two looks in a row. One that died is seen at once: kubelet then has nothing to give
#: out. Taking over from one that was only slow harms nobody: it serves again when it registers.
SILENCE = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSocket:
    """A socket in kubelet's plugin folder that is neither kubelet's nor ours."""

    name: str
    changed_ns: int
    answers: bool


def find_sockets(folder: Path) -> tuple[PluginSocket, ...]:
    """Find the plugin sockets of others and ask each whether it is alive.

    Only `GetDevicePluginOptions` is called: a second `ListAndWatch` would take health events away
    from kubelet's, since NVIDIA's plugin has one channel for all streams.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if _is_foreign(path.name))
    except OSError:
        return ()
    with ExitStack() as opened:
        # All at once: each that hangs would keep the others, and the agent, waiting.
        asked = [
            (path.name, changed, _ask(opened.enter_context(dial(path))))
            for path in paths
            if (changed := _changed(path)) is not None
        ]
        return tuple(
            PluginSocket(name=name, changed_ns=changed, answers=call.exception() is None)
            for name, changed, call in asked
        )


class ForeignPlugin:
    """Judges, from one observation to the next, whether another plugin serves the GPUs."""

    def __init__(self) -> None:
        self._silent_since: float | None = None
        self._known: frozenset[str] = frozenset()
        self._dead: frozenset[tuple[str, int]] = frozenset()

    def serves(
        self,
        sockets: Iterable[PluginSocket],
        *,
        given_by_kubelet: bool,
        own_heard: bool,
        chosen_ns: int,
        now: float,
    ) -> bool:
        """Tell whether the plugin that kubelet asks for GPUs now is alive and not ours.

        `given_by_kubelet`: kubelet has healthy GPUs to give out. `own_heard`: it listens to us.
        `chosen_ns`: when kubelet last showed that it had chosen us. `now`: monotonic seconds.
        """
        candidates = [s for s in self._candidates(sockets) if _key(s) not in self._dead]
        if not given_by_kubelet:
            # Kubelet lost whoever served: what does not answer now will not come back by itself.
            self._dead |= {_key(socket) for socket in candidates if not socket.answers}
        if not given_by_kubelet or not candidates:
            self._silent_since = None
            return False
        if own_heard:
            # The plugin that registers last is the one that kubelet asks.
            return any(
                socket.answers and socket.changed_ns > chosen_ns and self._is_gpu_plugin(socket)
                for socket in candidates
            )
        if any(socket.answers for socket in candidates):
            self._silent_since = None
            self._known |= {socket.name for socket in candidates if socket.answers}
            return True
        if self._silent_since is None:
            self._silent_since = now
        return now - self._silent_since < SILENCE

    def _candidates(self, sockets: Iterable[PluginSocket]) -> list[PluginSocket]:
        """Those named as NVIDIA's are, or else all: other hardware has plugins too."""
        every = list(sockets)
        return [socket for socket in every if _NVIDIA in socket.name] or every

    def _is_gpu_plugin(self, socket: PluginSocket) -> bool:
        return _NVIDIA in socket.name or socket.name in self._known


def _key(socket: PluginSocket) -> tuple[str, int]:
    return socket.name, socket.changed_ns


def _is_foreign(name: str) -> bool:
    return name != KUBELET_SOCKET and not name.startswith(SOCKET_PREFIX)


def _changed(path: Path) -> int | None:
    """Return when a socket was made, in nanoseconds; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns if stat.S_ISSOCK(found.st_mode) else None


def _ask(channel: grpc.Channel) -> grpc.Future[api_pb2.DevicePluginOptions]:
    plugin = api_pb2_grpc.DevicePluginStub(channel)
    call: grpc.Future[api_pb2.DevicePluginOptions] = plugin.GetDevicePluginOptions.future(
        api_pb2.Empty(), timeout=_ANSWER_TIMEOUT
    )
    return call
