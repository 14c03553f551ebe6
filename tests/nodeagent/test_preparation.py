"""Which way devices take into containers, and what is told where the best one is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.cdi import CdiSpec
from nodeagent.deviceplugin.driver_files import Roots
from nodeagent.deviceplugin.preparation import Preparation, Ways
from tests.nodeagent.plugin_parts import node

ENV, CDI = DeviceList.ENV, DeviceList.CDI


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cdi"


def _prepared(folder: Path, ways: Ways) -> tuple[DeviceList, int, str, str]:
    """Way, number of CDI names, trouble and breakage."""
    roots = Roots(driver=folder.parent, dev=folder.parent, host=folder.parent)
    handover = Preparation(CdiSpec(folder, roots), roots).prepare(node(2), ways)
    return (
        handover.device_list,
        len(handover.cdi_names),
        handover.trouble,
        handover.broken,
    )


def test_cdi_where_the_runtime_reads_it(folder: Path) -> None:
    assert _prepared(folder, Ways(variable=False)) == (CDI, 2, "", "")
    assert list(folder.iterdir())


def test_the_variable_where_it_does_not(folder: Path) -> None:
    for variable in (True, None):
        assert _prepared(folder, Ways(no_cdi="old", variable=variable)) == (ENV, 0, "", "")
    assert not folder.exists()


def test_nothing_where_neither_is_read(folder: Path) -> None:
    _, _, trouble, broken = _prepared(folder, Ways(no_cdi="it is old", variable=False))
    assert trouble == ""
    assert "it is old" in broken


def test_a_folder_that_cannot_be_written_is_trouble_where_the_variable_is_read(
    folder: Path,
) -> None:
    folder.write_text("a file stands in the way")
    way, names, trouble, broken = _prepared(folder, Ways())
    assert (way, names, broken) == (ENV, 0, "")
    assert "cannot be written" in trouble
    _, _, trouble, broken = _prepared(folder, Ways(variable=False))
    assert trouble == ""
    assert "cannot be written" in broken


def test_the_admins_choice_is_kept_and_doubted(folder: Path) -> None:
    assert _prepared(folder, Ways(no_cdi="old", forced=ENV)) == (ENV, 0, "", "")
    way, names, trouble, broken = _prepared(folder, Ways(forced=ENV, variable=False))
    assert (way, names, broken) == (ENV, 0, "")
    assert "is not set up here" in trouble
    assert _prepared(folder, Ways(forced=CDI, variable=False)) == (CDI, 2, "", "")
    way, names, trouble, broken = _prepared(folder, Ways(no_cdi="it is old", forced=CDI))
    assert (way, names, broken) == (CDI, 2, "")
    assert "it is old" in trouble
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("a file stands in the way")
    assert "cannot be written" in _prepared(folder, Ways(forced=CDI))[3]
