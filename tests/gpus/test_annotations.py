"""The contract on annotations: what we write we read back, and nothing else is believed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpus.annotations import (
    DEVICES_CONFIG_MAP_NAME,
    AnnotationError,
    assigned_prefix,
    decode_assigned,
    decode_in_use,
    decode_inventory,
    encode_assigned,
    encode_in_use,
    encode_inventory,
)
from gpus.model import (
    Assignment,
    DeviceId,
    Gpu,
    NodeInventory,
    PodUid,
    Source,
)
from tests.gpus.inventories import MIG_UUIDS, TEXT, UUIDS, inventories

DECODERS: list[Callable[[str], Any]] = [decode_inventory, decode_in_use, decode_assigned]

DEVICES = UUIDS | MIG_UUIDS
EPOCHS = st.integers(0, 2**31 - 1)
EXCLUSIVE = st.builds(
    lambda epoch, containers: Assignment(epoch=epoch, containers=containers),
    EPOCHS,
    st.dictionaries(TEXT, st.lists(DEVICES, max_size=4, unique=True).map(tuple), max_size=4),
)
SHARES = st.builds(
    lambda epoch, names, uuid, size: Assignment(
        epoch=epoch, containers=dict.fromkeys(names, (uuid,)), share_bytes=size
    ),
    EPOCHS,
    st.lists(TEXT, min_size=1, max_size=4),
    UUIDS,
    st.integers(1, 2**63 - 1),
)
ASSIGNMENTS = EXCLUSIVE | SHARES


@given(inventories())
def test_an_inventory_is_read_back_as_it_was(inventory: NodeInventory) -> None:
    assert decode_inventory(encode_inventory(inventory)) == inventory


@given(st.dictionaries(DEVICES, st.uuids().map(lambda u: PodUid(str(u))), max_size=16))
def test_holders_are_read_back_as_they_were(holders: dict[DeviceId, PodUid]) -> None:
    assert decode_in_use(encode_in_use(holders)) == holders


@given(ASSIGNMENTS)
def test_an_assignment_is_read_back_as_it_was(assignment: Assignment) -> None:
    assert decode_assigned(encode_assigned(assignment)) == assignment


@given(ASSIGNMENTS, st.integers(0, 2**31 - 1))
def test_the_fencing_policy_can_tell_the_epoch_from_the_start_of_the_text(
    assignment: Assignment, other: int
) -> None:
    text = encode_assigned(assignment)

    assert text.startswith(assigned_prefix(assignment.epoch))
    assert text.startswith(assigned_prefix(other)) == (other == assignment.epoch)


def test_the_texts_are_pinned() -> None:
    gpu, mig = DeviceId("GPU-1"), DeviceId("MIG-2")

    assert assigned_prefix(7) == '{"v":1,"epoch":7,'
    assert encode_assigned(Assignment(epoch=7)) == '{"v":1,"epoch":7,"containers":{}}'
    assert (
        encode_assigned(Assignment(epoch=7, containers={"main": (gpu, mig)}))
        == '{"v":1,"epoch":7,"containers":{"main":["GPU-1","MIG-2"]}}'
    )
    assert encode_in_use({gpu: PodUid("p")}) == '{"v":1,"holders":{"GPU-1":"p"}}'
    assert (
        encode_inventory(NodeInventory(source=Source.PROC, gpus=(Gpu(uuid=gpu, index=0),)))
        == '{"v":1,"source":"proc","gpus":[{"uuid":"GPU-1","index":0}]}'
    )


@given(holders=st.dictionaries(DEVICES, st.just(PodUid("p")), min_size=2, max_size=6))
def test_the_same_holders_give_the_same_text(holders: dict[DeviceId, PodUid]) -> None:
    backwards = dict(reversed(holders.items()))

    assert encode_in_use(holders) == encode_in_use(backwards)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("version", [0, 2, -1, 10**30, "1", 1.5, None, True, [1]])
def test_other_versions_are_refused(decode: Callable[[str], Any], version: Any) -> None:
    everything = {"source": "nvml", "holders": {}, "epoch": 1, "containers": {}}

    with pytest.raises(AnnotationError):
        decode(json.dumps({"v": version, **everything}))


@pytest.mark.parametrize("decode", DECODERS)
@given(text=st.text(max_size=200))
@example(text="")
@example(text="null")
@example(text="[]")
@example(text='"1"')
@example(text="NaN")
@example(text='{"v":1}')
@example(text='{"v":1e999}')
@example(text='\ufeff{"v":1,"holders":{}}')
@example(text="\ud800")
@example(text="[" * 100_000)
@example(text='{"v":' * 100_000)
@example(text='{"v":1,"x":' + "[" * 100_000)
@example(text='{"v":1' + "0" * 4000 + "}")
@example(text='{"v":1,"holders":{"' + "?" * 5000 + '":"p"}}')
@example(text='{"v":1,"epoch":1,"containers":{"' + "c" * 5000 + '":["GPU-a","GPU-a"]}}')
@example(text="x" * 1_000_000)
@example(text="9" * 10_000)
def test_garbage_is_refused_and_by_nothing_but_an_annotation_error(
    decode: Callable[[str], Any], text: str
) -> None:
    with pytest.raises(AnnotationError) as refused:
        decode(text)

    assert len(str(refused.value)) < 1000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | DEVICES
    | st.sampled_from(["nvml", "healthy", "system"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["uuid", "index", "links", "mig", "memory", "health", "0", "main", "profile"]
            )
            | DEVICES,
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"v": st.just(1)},
        optional={
            "source": JSON | st.just("nvml"),
            "gpus": JSON,
            "driver": JSON,
            "holders": JSON,
            "epoch": JSON,
            "containers": JSON,
        },
    )
)
def test_json_of_any_shape_is_refused_or_can_be_written_again(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    with contextlib.suppress(AnnotationError):
        inventory = decode_inventory(text)
        assert decode_inventory(encode_inventory(inventory)) == inventory
    with contextlib.suppress(AnnotationError):
        holders = decode_in_use(text)
        assert decode_in_use(encode_in_use(holders)) == holders
    with contextlib.suppress(AnnotationError):
        assignment = decode_assigned(text)
        assert decode_assigned(encode_assigned(assignment)) == assignment


@given(inventories().filter(lambda inventory: bool(inventory.gpus)), st.data())
def test_an_inventory_cut_off_anywhere_is_refused(
    inventory: NodeInventory, data: st.DataObject
) -> None:
    text = encode_inventory(inventory)
    cut = data.draw(st.integers(0, len(text) - 1))

    with pytest.raises(AnnotationError):
        decode_inventory(text[:cut])


GPU_A: dict[str, Any] = {"uuid": "GPU-a", "index": 0}
GPU_B: dict[str, Any] = {"uuid": "GPU-b", "index": 1}
MIG_M: dict[str, Any] = {"uuid": "MIG-m", "profile": "1g.5gb"}


@pytest.mark.parametrize(
    "gpus",
    [
        [GPU_A, {**GPU_B, "uuid": "GPU-a"}],
        [GPU_A, {**GPU_B, "index": 0}],
        [{**GPU_A, "mig": [MIG_M, MIG_M]}],
        [{**GPU_A, "mig": [MIG_M]}, {**GPU_B, "mig": [MIG_M]}],
        [{**GPU_A, "mig": [{**MIG_M, "uuid": "GPU-a"}]}],
        [{**GPU_A, "links": {"7": {"nvlinks": 1}}}],
        [{**GPU_A, "links": {"x": {"nvlinks": 1}}}],
        [{**GPU_A, "links": {"0": {"nvlinks": 1}}}],
        [GPU_B, {**GPU_A, "links": {"1": {"nvlinks": -1}}}],
        [{**GPU_A, "memory": -1}],
        [{**GPU_A, "memory": 2**80}],
        [{**GPU_A, "memory": "80Gi"}],
        [{**GPU_A, "mig": [{**MIG_M, "memory": -1}]}],
        [{**GPU_A, "index": -1}],
        [{**GPU_A, "index": 2**80}],
        [{**GPU_A, "computeCapability": "nine"}],
        [{**GPU_A, "computeCapability": "9"}],
        [{**GPU_A, "computeCapability": "9.0 "}],
        [{**GPU_A, "computeCapability": "\uff19.0"}],
        [{**GPU_A, "health": "splendid"}],
        [{**GPU_A, "uuid": ""}],
        [{**GPU_A, "uuid": "all"}],
        [{**GPU_A, "uuid": "none"}],
        [{**GPU_A, "uuid": "void"}],
        [{**GPU_A, "uuid": "0"}],
        [{**GPU_A, "uuid": "GPU-a,GPU-b"}],
        [{**GPU_A, "uuid": "GPU-a\n"}],
        [{**GPU_A, "uuid": "GPU-" + "a" * 200}],
        [{"uuid": "GPU-a"}],
        [{"index": 0}],
        {"0": GPU_A},
    ],
)
def test_an_inventory_that_contradicts_itself_is_refused(gpus: Any) -> None:
    with pytest.raises(AnnotationError):
        decode_inventory(json.dumps({"v": 1, "source": "nvml", "gpus": gpus}))


@pytest.mark.parametrize(
    "containers",
    [
        {"main": ["GPU-a", "GPU-a"]},
        {"main": ["all"]},
        {"main": ["void"]},
        {"main": ["GPU-a,GPU-b"]},
        {"main": ["../../dev/nvidia0"]},
        {"main": "GPU-a"},
        {"main": [0]},
        ["GPU-a"],
        None,
    ],
)
def test_an_assignment_of_what_is_no_device_is_refused(containers: Any) -> None:
    with pytest.raises(AnnotationError):
        decode_assigned(json.dumps({"v": 1, "epoch": 1, "containers": containers}))


@pytest.mark.parametrize("epoch", [-1, "1", 1.5, None, 2**80])
def test_an_epoch_that_no_lease_can_have_is_refused(epoch: Any) -> None:
    with pytest.raises(AnnotationError):
        decode_assigned(json.dumps({"v": 1, "epoch": epoch, "containers": {}}))


def test_containers_of_one_pod_may_share_a_device() -> None:
    text = '{"v":1,"epoch":1,"containers":{"init":["GPU-a"],"main":["GPU-a","GPU-b"]}}'

    assert decode_assigned(text).devices() == {"GPU-a", "GPU-b"}


def test_a_share_stands_after_the_containers_and_only_where_there_is_one() -> None:
    share = Assignment(epoch=7, containers={"main": (DeviceId("GPU-a"),)}, share_bytes=8 << 30)
    alone = Assignment(epoch=7, containers={"main": (DeviceId("GPU-a"),)})

    assert encode_assigned(share) == (
        '{"v":1,"epoch":7,"containers":{"main":["GPU-a"]},"share":8589934592}'
    )
    assert encode_assigned(alone) == '{"v":1,"epoch":7,"containers":{"main":["GPU-a"]}}'


@pytest.mark.parametrize(
    ("containers", "share"),
    [
        ({}, 1),
        ({"main": []}, 1),
        ({"main": ["GPU-a", "GPU-b"]}, 1),
        ({"main": ["GPU-a"], "other": ["GPU-b"]}, 1),
        ({"main": ["GPU-a"], "other": []}, 1),
        ({"main": ["MIG-a"]}, 1),
        ({"main": ["GPU-a"]}, -1),
        ({"main": ["GPU-a"]}, "8Gi"),
        ({"main": ["GPU-a"]}, 1.5),
        ({"main": ["GPU-a"]}, None),
        ({"main": ["GPU-a"]}, True),
        ({"main": ["GPU-a"]}, 2**63),
    ],
)
def test_a_share_of_anything_but_one_gpu_is_refused(containers: Any, share: Any) -> None:
    text = json.dumps({"v": 1, "epoch": 1, "containers": containers, "share": share})

    with pytest.raises(AnnotationError):
        decode_assigned(text)


def test_members_of_a_later_release_are_ignored_within_a_version() -> None:
    text = '{"v":1,"epoch":1,"containers":{},"mood":{"main":1}}'

    assert decode_assigned(text) == Assignment(epoch=1)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("gpudetour-devices-" + "a1" * 10, True),
        ("gpudetour-devices-" + "a1" * 9, False),
        ("gpudetour-devices-" + "a1" * 11, False),
        ("gpudetour-devices-" + "A1" * 10, False),
        ("gpudetour-devices-" + "a1" * 10 + "\n", False),
        ("kube-root-ca.crt", False),
    ],
)
def test_only_generated_config_map_names_are_ours(name: str, ours: bool) -> None:
    assert (DEVICES_CONFIG_MAP_NAME.fullmatch(name) is not None) == ours
