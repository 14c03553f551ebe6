"""What kubelet says of devices and their holders, also when it says nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodeagent.podresources.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from nodeagent.podresources.client import Holder, PodResources, PodResourcesError
from tests.fakes.kubelet import FakeKubelet, Held
from tests.nodeagent.plugin_parts import GPU, babbling, node, offered, running

HELD = [
    Held(resource=GPU, device="GPU-0", namespace="ns", pod="p", uid="u1"),
    Held(resource="example.com/nic", device="n0", namespace="ns", pod="p", uid="u1"),
]


def test_healthy_devices_and_holders(kubelet: FakeKubelet) -> None:
    kubelet.held = list(HELD)
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        kubelet.until(lambda: len(kubelet.healthy(GPU)) == 2)
        resources = PodResources(kubelet.root).read()
    assert resources.healthy == {GPU: {"GPU-0", "GPU-1"}}
    holder = Holder(namespace="ns", pod="p", container="main")
    assert resources.held == {GPU: {"GPU-0": holder}, "example.com/nic": {"n0": holder}}
    # Holders of a plugin that is gone are still seen, its devices are not.
    kubelet.until(lambda: not kubelet.healthy(GPU))
    after = PodResources(kubelet.root).read()
    assert after.healthy == {}
    assert after.held[GPU] == {"GPU-0": holder}  # type: ignore[index]
    checkpoint = read_checkpoint(kubelet.folder)
    assert checkpoint == Checkpoint(
        registered=frozenset({GPU}),  # type: ignore[arg-type]
        held={GPU: {"GPU-0": "u1"}, "example.com/nic": {"n0": "u1"}},  # type: ignore[dict-item]
    )


def test_no_kubelet_is_an_error_that_names_the_socket(short_folder: Path) -> None:
    with pytest.raises(PodResourcesError, match=r"pod-resources/kubelet\.sock: UNAVAILABLE"):
        PodResources(short_folder).read()


def test_a_socket_that_speaks_another_language_is_an_error(short_folder: Path) -> None:
    resources = PodResources(short_folder)
    resources.socket.parent.mkdir()
    with babbling(resources.socket), pytest.raises(PodResourcesError):
        resources.read()


def test_no_checkpoint_is_no_memory(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None
    assert read_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_of_real_kubelet_1_34(tmp_path: Path) -> None:
    text = (
        '{"Data":{"PodDeviceEntries":[{"PodUID":"489f0463-c542-4290-af4c-705eb31743ca",'
        '"ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"-1":["GPU-a"],'
        '"1":["GPU-b"]},"AllocResp":"KisKKWdwdQ=="}],"RegisteredDevices":{"nvidia.com/gpu":null}},'
        '"Checksum":3166545713}'
    )
    (tmp_path / "kubelet_internal_checkpoint").write_text(text)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.registered == {GPU}
    uid = "489f0463-c542-4290-af4c-705eb31743ca"
    assert checkpoint.held == {GPU: {"GPU-a": uid, "GPU-b": uid}}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"Data":3}', '{"Data":{"PodDeviceEntries":[{}]}}', "\xff\xfe"],
)
def test_a_checkpoint_that_is_garbage_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubelet_internal_checkpoint").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path)


def test_an_empty_checkpoint_remembers_nothing(tmp_path: Path) -> None:
    data = {"Data": {"PodDeviceEntries": None, "RegisteredDevices": {}}, "Checksum": 1}
    (tmp_path / "kubelet_internal_checkpoint").write_text(json.dumps(data))
    assert read_checkpoint(tmp_path) == Checkpoint(held={})
