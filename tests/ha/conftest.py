"""The proof of high availability: one site for all of it, and what it measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ha.measures import Measures
from tests.ha.site import Site
from tests.ha.site import site as build

_MEASURES = pytest.StashKey[Measures]()
#: CPython leaves a socket open that its peer resets before the handshake (ssl.SSLSocket._create),
#: as happens where processes are killed.
_RESET_EARLY = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
#: Pods a second while something is broken: the machine needs time for what is measured.
_RATE = 20.0


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing measured."""
    config.stash[_MEASURES] = Measures()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prove it first, while no other test's cluster runs beside; what counts comes last."""
    items.sort(key=_turn)
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(_RESET_EARLY)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell what was measured."""
    for line in config.stash[_MEASURES].lines():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def measures(pytestconfig: pytest.Config) -> Measures:
    """Where tests note what they measured."""
    return pytestconfig.stash[_MEASURES]


@pytest.fixture(scope="module")
def built(
    control_plane_parts: None, tmp_path_factory: pytest.TempPathFactory, measures: Measures
) -> Iterator[Site]:
    """The site, for all tests."""
    del control_plane_parts
    # Socket paths are short by law, and pytest's folders are long.
    with build(tmp_path_factory.mktemp("h")) as site:
        yield site
        measures.binds = site.auditor.binds
        refused = (entry for replica in site.replicas for entry in replica.said("bind refused"))
        measures.refused = Counter(_cause(entry["reason"]) for entry in refused)


@pytest.fixture
def site(built: Site) -> Iterator[Site]:
    """The site, whole and busy, before a test and after it; nothing may be given twice."""
    built.whole()
    with built.load.running(rate=_RATE):
        built.bind_some(10)
        yield built
        built.whole()
        built.bind_some(20)
    assert built.auditor.faults == []


def _cause(reason: str) -> str:
    """A reason without the names in it, short enough to be counted."""
    return re.sub(r'"[^"]*"|[/\w]*[\w-]*-\d+', "…", reason)[:150]


def _turn(item: pytest.Item) -> tuple[bool, str, bool]:
    """Sorts tests: those of this folder first, module by module, and in one what counts last."""
    elsewhere = item.path.parent != Path(__file__).parent
    return elsewhere, "" if elsewhere else item.path.name, "at_least_five_thousand" in item.name
