"""The list of checks is sound, and the handbook says the same."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

from doctor.checks.catalogue import CHECKS
from doctor.findings import Need
from doctor.report import catalogue
from tests.doctor.test_broken_nodes import CASES

_HANDBOOK = Path(__file__).parents[2] / "docs/doctor.md"


def test_checks_are_many_and_their_names_are_unique() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS) >= 30


def test_causes_exist_and_go_round_in_no_circle() -> None:
    graph = {check.id: check.causes for check in CHECKS}

    assert set(TopologicalSorter(graph).static_order()) == set(graph)


def test_the_handbook_holds_the_table_of_all_checks() -> None:
    assert catalogue(CHECKS) in _HANDBOOK.read_text()


def test_the_handbook_names_only_checks_that_exist() -> None:
    errors = _HANDBOOK.read_text().partition("## The six errors")[2].partition("## All")[0]
    columns = [row.strip("| ").rpartition(" | ")[2] for row in errors.splitlines()[4:]]
    named = {word.strip("`") for column in columns for word in column.split(", ") if word}

    assert len(named) >= 12
    assert named <= {check.id for check in CHECKS}


def test_every_check_of_a_nodes_hardware_and_driver_was_seen_to_fail() -> None:
    """Warnings have tests of their own, and so has what only root may read."""
    seen = {case.first for case in CASES} | {name for case in CASES for name in case.then}
    of_files = {check.id for check in CHECKS if Need.HOST in check.needs}
    only_warn = {
        "toolkit-version",
        "toolkit-swarm-resource",
        "toolkit-features",
        "device-char-links",
        "handler-cgroup",
        "orphaned-devices",
        "toolkit-environment",  # with a plugin, in test_plugin_faults
    }

    assert of_files - seen == only_warn
