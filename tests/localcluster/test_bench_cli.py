"""What the times of the command line come to."""

from __future__ import annotations

import pytest

from localcluster.bench.cli_figures import LARGE, SMALL, START, CliSeen, goals_of, ratio

SEEN = CliSeen(
    nodes=1000,
    pods=8000,
    seconds={
        (SMALL, START): [0.1, 0.2, 0.9],
        (SMALL, "nodes"): [0.4, 0.6, 0.7],
        (SMALL, "explain pod"): [0.4, 0.4, 0.4],
        (LARGE, "nodes"): [1.0, 4.0, 1.5],
        (LARGE, "kubectl get pods -A -l"): [1.0, 2.0, 1.0],
        (LARGE, "explain pod"): [0.9, 1.1, 0.8],
    },
)


def test_goals_are_judged_by_medians() -> None:
    assert [(goal.where, goal.value, goal.met) for goal in goals_of(SEEN)] == [
        ("1000 nodes, 8000 GPU pods", 1.5, True),
        ("1000 nodes, 8000 GPU pods", 0.9, True),
        ("8 nodes", 0.2, True),
        ("8 nodes", 0.6, False),
        ("8 nodes", 0.4, True),
    ]


def test_ratios_are_those_within_a_round() -> None:
    assert ratio(SEEN, LARGE, "nodes") == pytest.approx(1.5)
    assert ratio(SEEN, LARGE, "kubectl get pods -A -l") is None
