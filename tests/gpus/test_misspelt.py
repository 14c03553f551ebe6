"""What is told of names that mean nothing: labels in place of annotations, and near misses."""

from __future__ import annotations

import msgspec
import pytest

from gpus.annotations import GPU_LABEL, WISHES
from gpus.misspelt import doubtful_resources, misplaced_wishes
from kube.objects import Pod


def pod(**document: object) -> Pod:
    return msgspec.convert(document, Pod)


def test_every_wish_that_is_written_as_a_label_is_told() -> None:
    labels = dict.fromkeys((*WISHES, GPU_LABEL, "app", "gpudetour.io/team"), "x")

    told = list(misplaced_wishes(pod(metadata={"labels": labels})))

    assert told == [
        f"label {key} is not read; write it under metadata.annotations" for key in sorted(WISHES)
    ]


def test_without_labels_there_is_nothing_to_tell() -> None:
    assert not list(misplaced_wishes(pod(metadata={"labels": None})))


@pytest.mark.parametrize("kind", ["requests", "limits"])
@pytest.mark.parametrize("field", ["containers", "initContainers"])
@pytest.mark.parametrize(
    ("name", "doubtful"),
    [
        ("nvidia.com/gpus", True),
        ("nvidia.com/GPU", True),
        ("NVIDIA.com/gpu", True),
        ("nvidia.com/gpu", False),
        ("nvidia.com/gpu.shared", False),
        ("nvidia.com/gpudirect", False),
        ("nvidia.com/gpu-h100", False),
        ("example.com/gpus", False),
    ],
)
def test_near_misses_of_the_resource_are_told(
    kind: str, field: str, name: str, doubtful: bool
) -> None:
    found = pod(spec={field: [{"name": "main", "resources": {kind: {name: 1}}}]})

    told = list(doubtful_resources(found))

    assert told == [f"container 'main', {name}: did you mean nvidia.com/gpu?"] * doubtful
