"""What users narrow with annotations: what is understood, what is refused, what is admitted."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpus.annotations import (
    EXCLUDE_UUID,
    MIN_COMPUTE,
    MIN_MEMORY,
    POLICY,
    PRODUCT,
    TOPOLOGY,
    UUID,
    WISHES,
    is_device_id,
)
from gpus.model import DeviceId, Gpu, MigInstance
from gpus.quantity import written
from gpus.wishes import MAX_ENTRIES, Policy, Topology, Wishes, admits, of_product, read_wishes

GIB = 1 << 30
CARD = DeviceId("GPU-8dfc2b1a-0000-4000-8000-000000000000")
H100 = Gpu(
    uuid=CARD,
    index=0,
    product="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * GIB,
    compute_capability=(9, 0),
)


def wish(key: str, text: str) -> Wishes:
    wishes, faults = read_wishes({key: text})
    assert faults == ()
    return wishes


def fault(key: str, text: str) -> str:
    wishes, faults = read_wishes({key: text})
    assert wishes == Wishes()
    (only,) = faults
    assert only.startswith(f"annotation {key}: ")
    return only


@pytest.mark.parametrize(
    ("key", "text", "read"),
    [
        (PRODUCT, "*H100*", Wishes(products=("*H100*",))),
        (PRODUCT, " NVIDIA L4 ,\n*A100*", Wishes(products=("NVIDIA L4", "*A100*"))),
        (PRODUCT, "*L4,*L4", Wishes(products=("*L4",))),
        (
            UUID,
            "GPU-a, MIG-b,GPU-a",
            Wishes(uuids=frozenset({DeviceId("GPU-a"), DeviceId("MIG-b")})),
        ),
        (EXCLUDE_UUID, "MIG-GPU-a/1/0", Wishes(excluded=frozenset({DeviceId("MIG-GPU-a/1/0")}))),
        (MIN_MEMORY, "40Gi", Wishes(min_memory=40 * GIB)),
        (MIN_MEMORY, "80G", Wishes(min_memory=80 * 10**9)),
        (MIN_MEMORY, "1.5Gi", Wishes(min_memory=3 * GIB // 2)),
        (MIN_MEMORY, "1Ti", Wishes(min_memory=1 << 40)),
        (MIN_COMPUTE, "9", Wishes(min_compute=(9, 0))),
        (MIN_COMPUTE, "8.6", Wishes(min_compute=(8, 6))),
        (MIN_COMPUTE, "12.1", Wishes(min_compute=(12, 1))),
        (TOPOLOGY, "nvlink", Wishes(topology=Topology.NVLINK)),
        (TOPOLOGY, " numa\n", Wishes(topology=Topology.NUMA)),
        (POLICY, "binpack", Wishes(policy=Policy.BINPACK)),
        (POLICY, "spread", Wishes(policy=Policy.SPREAD)),
    ],
)
def test_a_wish_is_read(key: str, text: str, read: Wishes) -> None:
    assert wish(key, text) == read


@pytest.mark.parametrize(
    ("key", "text", "instead"),
    [
        (PRODUCT, "", "remove the annotation"),
        (PRODUCT, " , ", "remove the annotation"),
        (PRODUCT, "*H100*,,*A100*", "entry 2 of 3 is empty"),
        (PRODUCT, "*H100*,", "entry 2 of 2 is empty"),
        (PRODUCT, "H100\x00", "write names such as"),
        (PRODUCT, "x" * 129, "write names such as"),
        (PRODUCT, ",".join(f"H{n}" for n in range(65)), "name at most 64"),
        (UUID, "", "remove the annotation"),
        (UUID, "0", "`nvidia-smi -L`"),
        (UUID, "all", "`nvidia-smi -L`"),
        (UUID, "gpu-8dfc2b1a", "`nvidia-smi -L`"),
        (UUID, "GPU-a GPU-b", "`nvidia-smi -L`"),
        (EXCLUDE_UUID, "GPU-é", "`nvidia-smi -L`"),
        (MIN_MEMORY, "", "such as 40Gi"),
        (MIN_MEMORY, "40 GiB", "such as 40Gi"),
        (MIN_MEMORY, "-1Gi", "such as 40Gi"),
        (MIN_MEMORY, "10E", "such as 40Gi"),
        (MIN_MEMORY, "9" * 10_000, "such as 40Gi"),
        (MIN_MEMORY, "40", "such as 40Gi"),
        (MIN_MEMORY, "0", "such as 8Gi"),
        (MIN_MEMORY, "40960", "such as 40960Mi"),
        (MIN_MEMORY, "2Ti", "at most 1Ti"),
        (MIN_COMPUTE, "", "such as 8.0"),
        (MIN_COMPUTE, "80", "such as 8.0"),
        (MIN_COMPUTE, "sm_90", "such as 8.0"),
        (MIN_COMPUTE, "8.", "such as 8.0"),
        (MIN_COMPUTE, "0.9", "such as 8.0"),
        (MIN_COMPUTE, "\u0668.\u0660", "such as 8.0"),
        (TOPOLOGY, "", "write nvlink or numa"),
        (TOPOLOGY, "NVLink", "write nvlink or numa"),
        (TOPOLOGY, "nvlink,numa", "write nvlink or numa"),
        (POLICY, "pack", "write binpack or spread"),
    ],
)
def test_what_cannot_be_understood_is_a_fault_that_says_what_to_write(
    key: str, text: str, instead: str
) -> None:
    found = fault(key, text)

    assert instead in found
    assert len(found) < 300


def test_every_fault_is_told_and_what_can_be_read_is_kept() -> None:
    wishes, faults = read_wishes(
        {UUID: "0", MIN_MEMORY: "lots", TOPOLOGY: "ring", POLICY: "spread", PRODUCT: "*L4"}
    )

    assert [text.split(":")[0] for text in faults] == [
        f"annotation {UUID}",
        f"annotation {MIN_MEMORY}",
        f"annotation {TOPOLOGY}",
    ]
    assert wishes == Wishes(products=("*L4",), policy=Policy.SPREAD)


@given(st.dictionaries(st.sampled_from(WISHES) | st.text(), st.text()))
@example({UUID: "\ud800"})
@example({PRODUCT: "[[:alpha:]]--||&&~~[!]]"})
def test_any_text_is_read_or_refused(annotations: dict[str, str]) -> None:
    wishes, faults = read_wishes(annotations)

    assert hash(wishes) == hash(replace(wishes))
    assert len(faults) <= len(WISHES)
    assert all(is_device_id(device) for device in wishes.uuids | wishes.excluded)
    admits(wishes, H100, CARD, H100.memory_bytes)


device_ids = st.from_regex(r"(GPU|MIG)-[a-f0-9-]{1,36}", fullmatch=True).map(DeviceId)
globs = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=","),
    min_size=1,
    max_size=20,
).filter(lambda text: text.isprintable() and text == text.strip())
some_wishes = st.builds(
    Wishes,
    products=st.lists(globs, unique=True, max_size=MAX_ENTRIES).map(tuple),
    uuids=st.frozensets(device_ids, max_size=MAX_ENTRIES),
    excluded=st.frozensets(device_ids, max_size=MAX_ENTRIES),
    min_memory=st.just(0) | st.integers(1 << 20, 1 << 40),
    min_compute=st.none() | st.tuples(st.integers(1, 40), st.integers(0, 9)),
    topology=st.none() | st.sampled_from(Topology),
    policy=st.none() | st.sampled_from(Policy),
)


def as_written(wishes: Wishes) -> dict[str, str]:
    texts = {
        PRODUCT: ",".join(wishes.products),
        UUID: " , ".join(sorted(wishes.uuids)),
        EXCLUDE_UUID: ",\n".join(sorted(wishes.excluded)),
        MIN_MEMORY: written(wishes.min_memory) if wishes.min_memory else "",
        MIN_COMPUTE: "{}.{}".format(*wishes.min_compute) if wishes.min_compute else "",
        TOPOLOGY: wishes.topology or "",
        POLICY: wishes.policy or "",
    }
    return {key: text for key, text in texts.items() if text}


@given(some_wishes)
def test_what_is_written_is_what_is_read(wishes: Wishes) -> None:
    assert read_wishes(as_written(wishes)) == (wishes, ())


@given(some_wishes)
def test_only_what_keeps_gpus_out_narrows(wishes: Wishes) -> None:
    anything = replace(wishes, topology=None, policy=None)

    assert wishes.narrows == (anything != Wishes())


@pytest.mark.parametrize(
    ("glob", "matches"),
    [
        ("NVIDIA H100 80GB HBM3", True),
        ("NVIDIA-H100-80GB-HBM3", True),
        ("nvidia-h100*", True),
        ("*h100*", True),
        ("*H?00*", True),
        ("*[AH]100*", True),
        ("*", True),
        ("H100", False),
        ("*H200*", False),
        ("*[!H]100*", False),
        ("*A100*,*H100*", True),
    ],
)
def test_a_product_is_matched_by_its_name_or_its_label(glob: str, matches: bool) -> None:
    assert of_product(wish(PRODUCT, glob), H100) is matches


def test_a_name_with_brackets_matches_itself() -> None:
    gpu = replace(H100, product="GA102 [GeForce RTX 3090]")

    assert of_product(wish(PRODUCT, "GA102 [GeForce RTX 3090]"), gpu)
    assert of_product(wish(PRODUCT, "ga102-[geforce-rtx-3090]"), gpu)


def test_a_glob_takes_no_longer_for_many_stars() -> None:
    wishes = wish(PRODUCT, "*a" * 60 + "*b")
    began = time.monotonic()

    assert not of_product(wishes, replace(H100, product="a" * 96))

    assert time.monotonic() - began < 2


def admitted(wishes: Wishes, gpu: Gpu = H100) -> bool:
    return admits(wishes, gpu, gpu.uuid, gpu.memory_bytes)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        (UUID, CARD, True),
        (UUID, f"GPU-other,{CARD}", True),
        (UUID, "GPU-other", False),
        (EXCLUDE_UUID, CARD, False),
        (EXCLUDE_UUID, "GPU-other", True),
        (MIN_MEMORY, "80Gi", True),
        (MIN_MEMORY, "81Gi", False),
        (MIN_COMPUTE, "9.0", True),
        (MIN_COMPUTE, "8.9", True),
        (MIN_COMPUTE, "9.1", False),
        (MIN_COMPUTE, "10.0", False),
        (PRODUCT, "*A100*", False),
        (TOPOLOGY, "nvlink", True),
        (POLICY, "spread", True),
    ],
)
def test_a_gpu_is_admitted_when_it_is_what_is_wished(key: str, text: str, expected: bool) -> None:
    assert admitted(wish(key, text)) is expected


def test_all_wishes_must_be_met() -> None:
    both, faults = read_wishes({PRODUCT: "*H100*", MIN_MEMORY: "81Gi"})

    assert faults == ()
    assert not admitted(both)


@pytest.mark.parametrize(
    ("key", "text"), [(PRODUCT, "*"), (MIN_MEMORY, "1Gi"), (MIN_COMPUTE, "1.0")]
)
def test_what_is_not_known_of_a_gpu_satisfies_no_wish(key: str, text: str) -> None:
    unknown = Gpu(uuid=CARD, index=0)

    assert admitted(Wishes(), unknown)
    assert not admitted(wish(key, text), unknown)


def test_a_mig_instance_is_named_by_itself_or_by_its_card_and_has_memory_of_its_own() -> None:
    mig = MigInstance(uuid=DeviceId("MIG-a"), profile="1g.10gb", memory_bytes=10 * GIB)
    gpu = replace(H100, mig_enabled=True, mig=(mig,))

    def gets(key: str, text: str) -> bool:
        return admits(wish(key, text), gpu, mig.uuid, mig.memory_bytes)

    assert gets(UUID, "MIG-a")
    assert gets(UUID, CARD)
    assert not gets(UUID, "MIG-b")
    assert not gets(EXCLUDE_UUID, "MIG-a")
    assert not gets(EXCLUDE_UUID, CARD)
    assert gets(EXCLUDE_UUID, "MIG-b")
    assert gets(MIN_MEMORY, "10Gi")
    assert not gets(MIN_MEMORY, "11Gi")
    assert gets(PRODUCT, "*H100*")
