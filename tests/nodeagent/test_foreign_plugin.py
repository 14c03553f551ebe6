"""Whether a plugin of somebody else serves, judged from what can be seen of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc

from localcluster.foreignplugin import Foreign
from nodeagent.deviceplugin.foreign import SILENCE, ForeignPlugin, PluginSocket, find_sockets
from nodeagent.deviceplugin.sockets import SocketWatch, look
from tests.fakes.kubelet import FakeKubelet
from tests.nodeagent.plugin_parts import GPU

NVIDIA = PluginSocket(name="nvidia-gpu.sock", changed_ns=50, answers=True)
NVIDIA_DEAD = PluginSocket(name="nvidia-gpu.sock", changed_ns=50, answers=False)
RDMA = PluginSocket(name="rdma.sock", changed_ns=50, answers=True)


def _serves(
    judge: ForeignPlugin,
    sockets: Sequence[PluginSocket],
    *,
    given: bool = True,
    heard: bool = False,
    chosen_ns: int = 0,
    now: float = 0,
) -> bool:
    return judge.serves(
        sockets, given_by_kubelet=given, own_heard=heard, chosen_ns=chosen_ns, now=now
    )


def test_one_that_answers_while_kubelet_has_devices_serves() -> None:
    assert _serves(ForeignPlugin(), [NVIDIA])


def test_nobody_serves_when_kubelet_has_nothing_to_give() -> None:
    assert not _serves(ForeignPlugin(), [NVIDIA], given=False)
    assert not _serves(ForeignPlugin(), [])


def test_one_that_hangs_counts_as_dead_after_a_while_and_alive_when_it_wakes() -> None:
    judge = ForeignPlugin()
    assert _serves(judge, [NVIDIA], now=0)
    assert _serves(judge, [NVIDIA_DEAD], now=5)
    assert _serves(judge, [NVIDIA_DEAD], now=5 + SILENCE - 1)
    assert not _serves(judge, [NVIDIA_DEAD], now=5 + SILENCE)
    assert _serves(judge, [NVIDIA], now=30)
    assert _serves(judge, [NVIDIA_DEAD], now=31)


def test_the_socket_of_a_dead_one_is_no_plugin_that_hangs() -> None:
    judge = ForeignPlugin()
    assert not _serves(judge, [NVIDIA_DEAD], given=False, now=0)
    # Ours has just registered, and it is not yet seen that kubelet listens.
    assert not _serves(judge, [NVIDIA_DEAD], now=1)
    again = PluginSocket(name="nvidia-gpu.sock", changed_ns=60, answers=True)
    assert _serves(judge, [again], now=2)


def test_the_one_that_registered_last_is_asked() -> None:
    assert _serves(ForeignPlugin(), [NVIDIA], heard=True, chosen_ns=49)
    assert not _serves(ForeignPlugin(), [NVIDIA], heard=True, chosen_ns=51)
    assert not _serves(ForeignPlugin(), [NVIDIA_DEAD], heard=True, chosen_ns=49)


def test_plugins_of_other_hardware_are_not_taken_for_one_of_gpus() -> None:
    judge = ForeignPlugin()
    assert not _serves(judge, [RDMA], heard=True, chosen_ns=49)
    assert not _serves(judge, [RDMA, NVIDIA_DEAD], heard=True, chosen_ns=49)
    # Unless it is the only one that can explain kubelet's GPUs.
    assert _serves(judge, [RDMA], chosen_ns=49)


def test_sockets_of_others_are_found_and_asked(kubelet: FakeKubelet) -> None:
    (kubelet.folder / "a-file").write_text("")
    (kubelet.folder / "gpudetour-nvidia.com_gpu.sock").write_text("")
    with Foreign(kubelet.folder, ["GPU-0"]) as plugin:
        kubelet.until(lambda: kubelet.healthy(GPU) == {"GPU-0"})
        (alive,) = find_sockets(kubelet.folder)
        assert (alive.name, alive.answers) == ("nvidia-gpu.sock", True)
        with plugin.hanging():
            assert [socket.answers for socket in find_sockets(kubelet.folder)] == [False]
    (dead,) = find_sockets(kubelet.folder)
    assert (dead.changed_ns, dead.answers) == (alive.changed_ns, False)
    assert find_sockets(kubelet.folder / "nowhere") == ()


def test_one_that_does_not_answer_keeps_no_other_from_being_asked(short_folder: Path) -> None:
    names = ("a.sock", "b.sock", "c.sock")
    all_asked = threading.Barrier(len(names))

    def answer(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        all_asked.wait(10)  # and fails where the others were not asked meanwhile
        return b""

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    handlers["GetDevicePluginOptions"] = grpc.unary_unary_rpc_method_handler(answer)
    with ExitStack() as serving:
        for name in names:
            server = grpc.server(serving.enter_context(ThreadPoolExecutor(1)))
            server.add_registered_method_handlers("v1beta1.DevicePlugin", handlers)
            server.add_insecure_port(f"unix://{short_folder / name}")
            server.start()
            serving.callback(server.stop, None)
        found = find_sockets(short_folder)
        all_asked.abort()

    assert [(socket.name, socket.answers) for socket in found] == [(name, True) for name in names]


def test_a_death_is_noticed_though_no_file_changes(kubelet: FakeKubelet) -> None:
    changed, stop = threading.Event(), threading.Event()
    with Foreign(kubelet.folder, ["GPU-0"]) as plugin:
        watch = SocketWatch(kubelet.folder, changed.set)
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        try:
            plugin.kill()
            assert changed.wait(10)
        finally:
            stop.set()
            thread.join(10)


def test_our_own_sockets_and_a_missing_folder_look_like_nothing(short_folder: Path) -> None:
    (short_folder / "gpudetour-x.sock").write_text("")
    assert look(short_folder) == look(short_folder / "nowhere") == frozenset()
