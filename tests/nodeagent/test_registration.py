"""The plugin stays registered whatever kubelet and its folder go through."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.foreignplugin import Foreign
from nodeagent.deviceplugin.plugins import PluginSet
from nodeagent.path import OwnPlugin
from tests.fakes.kubelet import FakeKubelet
from tests.nodeagent.plugin_parts import GPU, babbling, node, offered, running

#: What the plugin of somebody else lists.
THEIRS = ("GPU-0", "GPU-1", "GPU-2")


@pytest.fixture
def serving(kubelet: FakeKubelet) -> Iterator[PluginSet]:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        _eventually(lambda: plugins.status().own is OwnPlugin.SERVING)
        yield plugins


def _eventually(condition: Callable[[], bool], *, timeout: float = 10) -> None:
    """Poll what no event announces, with a deadline."""
    deadline = time.monotonic() + timeout
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        tick.wait(0.02)


def _serves_again(kubelet: FakeKubelet, plugins: PluginSet) -> None:
    kubelet.until(lambda: kubelet.healthy(GPU) == {"GPU-0", "GPU-1"})
    _eventually(lambda: plugins.status().own is OwnPlugin.SERVING)


def test_a_restarted_kubelet_gets_it_back(kubelet: FakeKubelet, serving: PluginSet) -> None:
    for _ in range(2):
        kubelet.restart()
        _serves_again(kubelet, serving)


def _wiped(folder: Path) -> bool:
    """Remove a folder where the plugin may make its socket meanwhile; tell whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_the_folder_wiped_and_made_anew(kubelet: FakeKubelet, serving: PluginSet) -> None:
    kubelet.stop()
    _eventually(lambda: _wiped(kubelet.folder))
    _eventually(lambda: serving.status().own is OwnPlugin.STARTING)
    kubelet.start()
    _serves_again(kubelet, serving)


def test_only_our_own_socket_removed(kubelet: FakeKubelet, serving: PluginSet) -> None:
    before = len(kubelet.registrations)
    (kubelet.folder / "gpudetour-nvidia.com_gpu.sock").unlink()
    kubelet.until(lambda: len(kubelet.registrations) > before)
    _serves_again(kubelet, serving)


def test_kubelet_hangs_up_without_a_restart(kubelet: FakeKubelet, serving: PluginSet) -> None:
    kubelet.disconnect(GPU)
    _serves_again(kubelet, serving)


def test_a_kubelet_that_comes_late_is_found(short_folder: Path) -> None:
    kubelet = FakeKubelet(short_folder / "plugins")
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        _eventually(lambda: "is not there" in plugins.status().error)
        assert plugins.status().own is OwnPlugin.STARTING
        with kubelet:
            _serves_again(kubelet, plugins)


def test_a_stale_kubelet_socket_is_an_error_that_passes(short_folder: Path) -> None:
    kubelet = FakeKubelet(short_folder / "plugins")
    kubelet.start()
    kubelet.stop()
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        _eventually(lambda: "UNAVAILABLE" in plugins.status().error)
        with kubelet:
            _serves_again(kubelet, plugins)


def test_a_kubelet_socket_that_speaks_another_language_is_an_error_that_passes(
    short_folder: Path,
) -> None:
    kubelet = FakeKubelet(short_folder / "plugins")
    kubelet.folder.mkdir()
    with babbling(kubelet.folder / "kubelet.sock"), running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        _eventually(lambda: plugins.status().error != "")
        assert plugins.status().own is OwnPlugin.STARTING
        with kubelet:
            _serves_again(kubelet, plugins)


def test_a_refusal_is_told_and_lasts_until_kubelet_restarts(kubelet: FakeKubelet) -> None:
    kubelet.refuse = lambda _request: "the ResourceName is invalid"
    with running(kubelet.folder, patience=0.5) as plugins:
        plugins.serve(offered(node(2)))
        _eventually(lambda: plugins.status().own is OwnPlugin.REFUSED)
        assert plugins.status().error == "UNKNOWN: the ResourceName is invalid"
        plugins.withdraw()
        _eventually(lambda: not list(kubelet.folder.glob("gpudetour-*")))
        assert plugins.status().own is OwnPlugin.REFUSED
        kubelet.refuse = lambda _request: None
        kubelet.restart()
        # Its socket goes before it has noted so.
        _eventually(lambda: plugins.status().own is OwnPlugin.IDLE)
        plugins.serve(offered(node(2)))
        _serves_again(kubelet, plugins)


def test_a_kubelet_that_registers_and_does_not_listen_is_no_success(kubelet: FakeKubelet) -> None:
    kubelet.listens = False
    with running(kubelet.folder, patience=0) as plugins:
        plugins.serve(offered(node(2)))
        _eventually(lambda: "does not ask" in plugins.status().error)
        assert plugins.status().own is not OwnPlugin.SERVING


def test_withdrawing_takes_the_devices_from_kubelet(
    kubelet: FakeKubelet, serving: PluginSet
) -> None:
    serving.withdraw()
    kubelet.until(lambda: not kubelet.healthy(GPU))
    _eventually(lambda: serving.status().own is OwnPlugin.IDLE)
    assert not list(kubelet.folder.glob("gpudetour-*"))


def test_a_second_plugin_replaces_us_and_we_take_over_when_it_dies(
    kubelet: FakeKubelet, serving: PluginSet
) -> None:
    ours = kubelet.clients[GPU]
    with Foreign(kubelet.folder, THEIRS):
        kubelet.until(lambda: kubelet.healthy(GPU) == set(THEIRS))
        serving.stand_aside()
        _eventually(lambda: serving.status().own is OwnPlugin.IDLE)
        # Our stream must stay: its end would cost the other one its registration.
        assert ours.connected
        assert kubelet.healthy(GPU) == set(THEIRS)
    kubelet.until(lambda: not kubelet.healthy(GPU))
    serving.serve(offered(node(2)))
    _serves_again(kubelet, serving)


def test_a_plugin_that_hangs_is_replaced_and_its_end_does_no_harm(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins, Foreign(kubelet.folder, THEIRS) as other:
        kubelet.until(lambda: kubelet.healthy(GPU) == set(THEIRS))
        with other.hanging():
            plugins.serve(offered(node(2)))
            _serves_again(kubelet, plugins)
            before = len(kubelet.registrations)
            other.kill()
        # Kubelet now disconnects whoever is registered, which is us.
        kubelet.until(lambda: len(kubelet.registrations) > before)
        _serves_again(kubelet, plugins)
