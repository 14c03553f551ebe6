"""The page in a real browser, from a real extender: what a person sees, does and hears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

import gpus.annotations as contract
from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE
from gpus.model import Health
from localcluster import shipped
from localcluster.chromium import BrowserError, Chromium, Tab
from localcluster.ports import free_ports
from localcluster.simulated import NodeTemplate
from localcluster.stack import EXTENDER, Stack, answers
from localcluster.waiting import until
from tests.builders import NodeBuilder, node
from tests.cluster.pods import asking, bound

pytestmark = pytest.mark.controlplane

NAMESPACES = ("red", "blue")
#: Markup that would run if any of it were taken for markup.
HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
    "\"'><svg onload=window.hacked=3>&lt;{{7*7}}</textarea></title>"
)
CELLS = "[...document.querySelectorAll('#grid [role=row]:not([hidden]) [role=gridcell]')]"
SHOWN = "[...document.querySelectorAll('#grid [role=row]:not([hidden])')].map(r=>r.dataset.node)"
FOCUS = "document.activeElement.getAttribute('aria-label')"


class Fleet:
    """Nodes and pods of this file; the tests run in one cluster and leave nothing behind."""

    def __init__(self, stack: Stack) -> None:
        self._cluster = stack.cluster
        self._paths: list[str] = []

    def add(self, node: NodeBuilder) -> None:
        """Create a node as its agent would have left it."""
        template = NodeTemplate(
            capacity={"cpu": "64", "memory": "512Gi", "pods": "110", **node.allocatable},
            labels={GPU_LABEL: GPU_LABEL_VALUE},
            annotations=node.annotations,
        )
        self._cluster.create_bare_nodes([node.name], template)
        self._paths.append(f"/api/v1/nodes/{node.name}")

    def says(self, name: str, **annotations: str) -> None:
        """Change annotations of a node as its agent would; `path_reason=…`."""
        texts = {f"{contract.PREFIX}{k.replace('_', '-')}": v for k, v in annotations.items()}
        self._cluster.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"annotations": texts}})

    def pod(self, namespace: str, name: str, gpus: int, *, waits: bool = False) -> None:
        """Create a pod through admission, and wait until it is bound unless it cannot be."""
        pods = f"/api/v1/namespaces/{namespace}/pods"
        self._cluster.api.create(pods, asking(name, {"nvidia.com/gpu": gpus}))
        self._paths.append(f"{pods}/{name}")
        if not waits:
            self._cluster.wait_for(f"{pods}/{name}", bound, timeout=60)

    def clear(self) -> None:
        """Take everything away, pods first."""
        for path in reversed(self._paths):
            self._cluster.api.delete(path, grace_seconds=0)


@pytest.fixture(scope="module")
def namespaces(stack: Stack) -> None:
    """Two namespaces whose pods can be told apart."""
    for name in NAMESPACES:
        stack.cluster.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        stack.cluster.wait_for(account, bool, timeout=60)


@pytest.fixture
def fleet(stack: Stack, namespaces: None, tab: Tab) -> Iterator[Fleet]:
    """Two nodes of two products, nothing on them, and seen by the open page."""
    del namespaces
    fleet = Fleet(stack)
    fleet.add(node("alpha").with_gpus(4, "NVIDIA H100").annotation_path())
    fleet.add(node("beta").with_gpus(2, "NVIDIA L40S").annotation_path())
    # Of a node of the same name in the last test, pods may be known for a moment still.
    tab.until(f"{CELLS}.filter(c => c.dataset.state === 'free').length === 6")
    yield fleet
    fleet.clear()
    # The next test begins with an empty page.
    tab.until("document.querySelectorAll('#grid [role=row]').length === 0")
    # As the queue does: waiting pods are gone too.
    tab.until("document.querySelectorAll('#queue li').length === 0")


@pytest.fixture
def tab(stack: Stack, browser: Chromium) -> Iterator[Tab]:
    """The page, loaded once and never again. Whatever it does, it has nothing to complain about."""
    tab = browser.tab()
    tab.go(f"{stack.side_url('extender')}/")
    tab.until("document.getElementById('link')?.dataset.link === 'live'")
    tab.evaluate("window.loadedOnce = true")
    yield tab
    assert tab.evaluate("window.loadedOnce")
    assert tab.complaints == []
    origins = {urlsplit(url).netloc for url in tab.requests}
    assert origins == {urlsplit(stack.side_url("extender")).netloc}
    tab.close()


def cells(tab: Tab, *attributes: str) -> list[Any]:
    """Return what is on the cells that are shown."""
    wanted = ",".join(attributes)
    return json.loads(tab.evaluate(f"JSON.stringify({CELLS}.map(c => [{wanted}]))"))  # type: ignore[no-any-return]


def choose(tab: Tab, field: str, value: str) -> None:
    """Fill in a field of the filters as a person does."""
    tab.evaluate(
        f"(f => {{ f.value = {json.dumps(value)};"
        " f.dispatchEvent(new Event('input', {bubbles: true})); })"
        f"(document.getElementById({json.dumps(field)}))"
    )


def test_a_bind_appears_by_itself_with_state_and_holder(fleet: Fleet, tab: Tab) -> None:
    totals = "document.getElementById('totals').textContent"
    assert "Nodes2GPUs6Free6" in tab.evaluate(totals)
    assert [state for (state,) in cells(tab, "c.dataset.state")] == ["free"] * 6

    fleet.pod("red", "train", 2)

    tab.until(f"{CELLS}.filter(c => c.dataset.state === 'held').length === 2")
    held = [words for (words,) in cells(tab, "c.getAttribute('aria-label')") if "held" in words]
    assert all("held, by red/train; NVIDIA" in words for words in held)
    assert "Free4In use2" in tab.evaluate(totals)


def test_pods_that_wait_say_why(fleet: Fleet, tab: Tab) -> None:
    fleet.pod("blue", "large", 8, waits=True)

    said = "2 nodes fewer GPUs than asked"
    tab.until(f"document.getElementById('queue').textContent.includes('{said}')")
    text = tab.evaluate("document.getElementById('queue').textContent")
    assert "blue/large" in text
    assert "8 x nvidia.com/gpu" in text


def test_filters_by_namespace_product_state_and_text(fleet: Fleet, tab: Tab) -> None:
    fleet.pod("red", "one", 2)
    fleet.pod("blue", "two", 4)
    tab.until(f"{CELLS}.filter(c => c.dataset.state === 'held').length === 6")
    open_cells = f"{CELLS}.filter(c => !c.hasAttribute('data-dim')).length"

    choose(tab, "namespace", "blue")
    tab.until(f"{open_cells} === 4")
    assert tab.evaluate(SHOWN) == ["alpha"]
    assert "1 node and 4 GPUs of 2 nodes, 6 GPUs match." in tab.evaluate(
        "document.getElementById('status').textContent"
    )
    assert tab.evaluate("location.hash") == "#namespace=blue"

    choose(tab, "namespace", "")
    choose(tab, "product", "NVIDIA L40S")
    tab.until(f"{open_cells} === 2")
    choose(tab, "product", "")
    choose(tab, "text", "ONE")
    tab.until(f"{open_cells} === 2 && {SHOWN}.join() === 'beta'")
    choose(tab, "text", "")
    tab.evaluate("document.querySelector('#states [value=free]').click()")
    tab.until(f"{CELLS}.length === 0 && !document.getElementById('nothing').hidden")
    tab.evaluate("document.getElementById('clear').click()")
    tab.until(f"{open_cells} === 6")


def test_a_link_carries_the_filter(fleet: Fleet, browser: Chromium, stack: Stack) -> None:
    fleet.pod("red", "one", 2)
    other = browser.tab()

    other.go(f"{stack.side_url('extender')}/#namespace=red&state=held")

    other.until(f"{CELLS}.filter(c => !c.hasAttribute('data-dim')).length === 2")
    assert other.evaluate("document.getElementById('namespace').value") == "red"
    other.close()


def test_a_gpu_is_found_by_its_uuid(fleet: Fleet, tab: Tab) -> None:
    del fleet
    choose(tab, "text", "GPU-alpha-3")

    tab.until("document.getElementById('details-name').textContent === 'GPU 3 on alpha'")
    assert "GPU-alpha-3" in tab.evaluate("document.getElementById('facts').textContent")
    choose(tab, "text", "GPU-nowhere")
    tab.until("document.getElementById('status').textContent.startsWith('No GPU is known by')")


def test_everything_can_be_reached_by_keys(fleet: Fleet, tab: Tab) -> None:
    fleet.pod("red", "train", 1)
    tab.until(f"{CELLS}.some(c => c.dataset.state === 'held')")
    assert tab.evaluate("document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1

    tab.press("/")
    assert tab.evaluate("document.activeElement.id") == "text"
    tab.type("alpha")
    tab.until(f"{SHOWN}.join() === 'alpha'")
    tab.press("Escape")
    tab.until(f"{SHOWN}.join() === 'alpha,beta'")
    tab.evaluate("document.querySelector('#grid [tabindex=\"0\"]').focus()")
    assert tab.evaluate(FOCUS).startswith("Node alpha")
    for key, expected in (
        ("ArrowRight", "GPU 0,"),
        ("ArrowRight", "GPU 1,"),
        ("End", "GPU 3,"),
        ("ArrowRight", "Node beta"),
        ("ArrowLeft", "GPU 3,"),
        ("Home", "Node alpha"),
    ):
        tab.press(key)
        assert tab.evaluate(FOCUS).startswith(expected), key
    tab.press("End", ctrl=True)
    assert tab.evaluate(FOCUS).startswith("GPU 1,")
    tab.press("Home", ctrl=True)
    assert tab.evaluate(FOCUS).startswith("Node alpha")
    assert tab.evaluate("document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1


def test_details_open_by_enter_follow_changes_and_give_the_focus_back(
    fleet: Fleet, tab: Tab
) -> None:
    tab.evaluate(f"{CELLS}[0].focus()")
    tab.press("Enter")
    tab.until("document.activeElement.id === 'details-name'")
    facts = "document.getElementById('facts').textContent"
    assert "GPU-alpha-0" in tab.evaluate(facts)

    fleet.pod("blue", "all", 4)

    tab.until(f"{facts}.includes('blue/all')")
    # The details are of this moment, the grid of the last look, when the GPU may have been kept.
    tab.until(f"{CELLS}[0].dataset.state === 'held'")
    tab.press("Escape")
    assert tab.evaluate("document.getElementById('details').hidden")
    assert tab.evaluate(FOCUS).startswith("GPU 0, held, by blue/all")


def test_a_screen_reader_hears_names_headings_and_news(fleet: Fleet, tab: Tab) -> None:
    fleet.pod("red", "train", 4)
    tab.until(f"{CELLS}.filter(c => c.dataset.state === 'held').length === 4")

    named: dict[str, list[str]] = {}
    for each in tab.tree():
        role = each.get("role", {}).get("value", "")
        if not each.get("ignored"):
            named.setdefault(role, []).append(each.get("name", {}).get("value", ""))

    assert named["grid"] == ["Nodes and GPUs"]
    assert len(named["row"]) == 2
    assert named["gridcell"][0] == "GPU 0, held, by red/train; NVIDIA H100"
    assert named["rowheader"][1].startswith("Node beta, 2 of 2 GPUs free, annotation path")
    assert {"gpudetour", "Nodes and GPUs", "Waiting pods"} <= set(named["heading"])
    assert {"status", "main", "search", "banner"} & set(named) >= {"status", "main", "search"}
    for role in ("button", "searchbox", "combobox", "gridcell", "rowheader", "row"):
        assert all(named[role]) or role == "row", role


def test_markup_in_anything_from_the_cluster_stays_text(fleet: Fleet, tab: Tab) -> None:
    hostile = node("gamma").with_gpus(2, HOSTILE).health(Health.FAULTY, 1)
    hostile = hostile.cards(1, health_reason=HOSTILE).cards(bdf=HOSTILE, architecture=HOSTILE)
    fleet.add(hostile.annotation_path())
    fleet.add(
        replace(hostile, name="delta").inventory().path("settling").annotated(
            contract.PATH_REASON, HOSTILE
        )
    )  # fmt: skip
    tab.until(f"{SHOWN}.length === 4")
    tab.evaluate(f"{CELLS}.find(c => c.dataset.state === 'faulty').click()")
    tab.until("document.getElementById('facts').textContent.includes('<script>')")
    choose(tab, "product", HOSTILE)
    tab.until(f"{SHOWN}.length === 2")
    choose(tab, "text", HOSTILE)
    tab.until("document.getElementById('status').textContent.includes('match')")

    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate("document.querySelectorAll('script').length") == 1
    assert tab.evaluate("document.querySelectorAll('img, svg, iframe').length") == 1
    words = "document.getElementById('grid').textContent"
    assert HOSTILE in tab.evaluate(words)


def test_the_browser_itself_would_refuse_code_in_text(stack: Stack, browser: Chromium) -> None:
    tab = browser.tab()
    tab.go(f"{stack.side_url('extender')}/")
    tab.until("document.getElementById('link')?.dataset.link === 'live'")

    with pytest.raises(BrowserError, match="TrustedHTML"):
        tab.evaluate("document.body.innerHTML = '<b>x</b>'")
    tab.evaluate(
        "(s => { try { s.textContent = 'window.hacked = 1' } catch {} document.body.append(s) })"
        "(document.createElement('script'))"
    )
    refused = "fetch('http://127.0.0.2:1/').then(() => false, () => true)"

    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate(refused)
    until(
        lambda: any("connect-src" in each for each in tab.complaints),
        timeout=30,
        what="a violation told",
    )
    tab.close()


def test_the_page_says_that_it_is_stale_and_recovers_when_the_extender_is_back(
    stack: Stack, fleet: Fleet, browser: Chromium
) -> None:
    tab = browser.tab()
    tab.go(f"{stack.side_url('extender')}/")
    tab.until(f"{CELLS}.length === 6")
    tab.evaluate("window.loadedOnce = true")
    stack.stop("extender")
    try:
        tab.until("document.getElementById('link').dataset.link === 'stale'")
        assert "What you see is as of" in tab.evaluate(
            "document.getElementById('banner').textContent"
        )
        assert len(cells(tab, "c.dataset.state")) == 6
    finally:
        stack.start_extender({"--page": None})
    tab.until("document.getElementById('link').dataset.link === 'live'")
    fleet.pod("red", "after", 4)
    tab.until(f"{CELLS}.filter(c => c.dataset.state === 'held').length === 4")
    assert tab.evaluate("window.loadedOnce")
    assert tab.evaluate("document.getElementById('banner').hidden")
    tab.close()


def test_a_replica_that_does_not_lead_shows_what_it_knows(
    stack: Stack, fleet: Fleet, browser: Chromium
) -> None:
    fleet.pod("red", "train", 2)
    port, side = free_ports(2)
    options: dict[str, str | None] = {
        **stack._serving("extender"),
        "--kubeconfig": str(stack._kubeconfig(EXTENDER)),
        "--port": str(port),
        "--side-port": str(side),
        "--page": None,
    }
    processes = stack.cluster.processes
    processes.start("follower", shipped.command_line(EXTENDER, options))
    try:
        until(lambda: answers(f"http://127.0.0.1:{side}/healthz"), timeout=60, what="the follower")
        tab = browser.tab()
        tab.go(f"http://127.0.0.1:{side}/")
        tab.until(f"{CELLS}.filter(c => c.dataset.state === 'unknown').length === 6")
        banner = "document.getElementById('banner').textContent"
        tab.until(f"{banner}.includes('another replica leads')")
        tab.close()
    finally:
        processes.stop("follower")
