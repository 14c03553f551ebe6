"""A thousand nodes in a real browser, contrast in both themes, and a replica that does not lead.

The ledger is fed by hand here: what is looked at is the page.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator

import pytest

from extender.page.feed import Message
from extender.page.site import Site
from gpus.model import Health
from localcluster.chromium import Chromium, Tab
from localcluster.waiting import until
from service.metrics import new_registry
from service.side_port import SidePort
from tests.builders import gpu_id, node, pod
from tests.page.fleet import Fleet

NODES, GPUS = 1000, 8
CELLS = "document.querySelectorAll('#grid [role=gridcell]').length"
FOCUS = "document.activeElement.getAttribute('aria-label')"
#: Text that is seen, with its contrast to what is behind it (WCAG 2.2, 1.4.3).
POOR = """(() => {
  const channels = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.matches("script, noscript, option, .skip")) continue;
    seen += 1;
    const [one, other] = [channels(getComputedStyle(element).color), behind(element)].map(light);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) poor.push([walker.currentNode.data, element.className, contrast]);
  }
  return { poor, seen };
})()"""


@pytest.fixture
def fleet() -> Fleet:
    """A fleet whose page is served."""
    return Fleet(clock=time.monotonic)


@pytest.fixture
def url(fleet: Fleet) -> Iterator[str]:
    """Where the fleet's page is."""
    site = Site(fleet.feed).answer
    side = SidePort("127.0.0.1", 0, registry=new_registry("test"), ready=lambda: None, site=site)
    yield f"http://127.0.0.1:{side.start()}/"
    side.stop()


def opened(browser: Chromium, url: str, *, dark: bool = False) -> Tab:
    """Open the page and wait for its first answer."""
    tab = browser.tab(dark=dark)
    tab.go(url)
    tab.until("['live', 'following'].includes(document.getElementById('link')?.dataset.link)")
    return tab


def fill(fleet: Fleet, *, batch: str) -> None:
    """Let a pod of its own hold each GPU."""
    for number in range(NODES):
        name = f"gpu-node-{number:04d}"
        for index in range(GPUS):
            holder = pod(f"{batch}-{number:04d}-{index}", "training").wants(gpus=1).on(name)
            fleet.pod(holder.assigned({"main": [gpu_id(name, index)]}))


def test_a_thousand_nodes_can_be_used(fleet: Fleet, url: str, browser: Chromium) -> None:
    for number in range(NODES):
        fleet.node(node(f"gpu-node-{number:04d}").with_gpus(GPUS).annotation_path())
    tab = opened(browser, url)
    tab.until(f"{CELLS} === {NODES * GPUS}")
    version = fleet.since()["version"]

    fill(fleet, batch="train")

    def everything() -> Message | None:
        message = fleet.feed.since(version)
        return message if len(json.loads(message.plain)["nodes"]) == NODES else None

    # All changed since: there is no larger update.
    update = until(everything, timeout=60, what="news of every node")
    assert json.loads(update.plain)["full"] is False
    assert len(update.packed) <= 100 << 10
    assert gzip.decompress(update.packed) == update.plain
    tab.until("document.querySelectorAll('#grid [data-state=held]').length === 8000")
    tab.evaluate("document.querySelector('#grid [tabindex=\"0\"]').focus()")
    tab.press("End", ctrl=True)
    assert tab.evaluate(FOCUS).startswith("GPU 7, held, by training/train-0999-7")
    seen = "(r => r.top >= 0 && r.bottom <= innerHeight)"
    tab.until(f"{seen}(document.activeElement.getBoundingClientRect())")
    tab.press("/")
    tab.type("train-0500-3")
    tab.until("document.querySelectorAll('#grid [role=row]:not([hidden])').length === 1")
    assert tab.evaluate("document.getElementById('grid').getAttribute('aria-rowcount')") == "1000"
    assert tab.complaints == []
    tab.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("colour", ["", "namespace"])
def test_text_of_every_kind_can_be_read(
    fleet: Fleet, url: str, browser: Chromium, *, dark: bool, colour: str
) -> None:
    sick = node("sick").with_gpus(4).health(Health.FAULTY, 0).health(Health.LOST, 1)
    fleet.node(sick.health(Health.UNMONITORED, 2).annotation_path(), unschedulable=True)
    fleet.node(node("odd").with_gpus(1).path("settling").inventory())
    large = node("large").with_gpus(12).cards(memory_bytes=80 << 30).annotation_path()
    fleet.node(large)
    for index in range(9):
        holder = pod(f"holder-{index}", f"space-{index}").wants(gpus=1).on("large")
        fleet.pod(holder.assigned({"main": [gpu_id("large", index)]}))
    share = pod("share").wants(memory="20Gi").on("large")
    fleet.pod(share.assigned({"main": [gpu_id("large", 9)]}, share=20 << 30))
    waiting = pod("waits").wants(gpus=9)
    fleet.pod(waiting)
    fleet.refuse(waiting, all_GPUs_in_use=3)
    tab = browser.tab(dark=dark)
    tab.go(f"{url}#colour={colour}")
    tab.until(f"{CELLS} === 17")
    tab.evaluate("document.querySelector('#grid [data-state=faulty]').click()")
    tab.until("!document.getElementById('details').hidden")

    for view in ("detail", "compact"):
        tab.evaluate(f"document.getElementById('grid').dataset.view = '{view}'")
        found = tab.evaluate(POOR)
        assert found["poor"] == []
        # It has looked at what is there.
        assert found["seen"] > 60
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 20, 27)" if dark else "rgb(246, 247, 249)"
    )
    tab.close()


def test_a_replica_that_does_not_lead_says_so(fleet: Fleet, url: str, browser: Chromium) -> None:
    fleet.node(node("alpha").with_gpus(2).annotation_path())
    fleet.why = "another replica leads, or nobody does yet"
    tab = opened(browser, url)

    tab.until(f"{CELLS} === 2")
    assert fleet.why in tab.evaluate("document.getElementById('banner').textContent")
    assert tab.evaluate("document.querySelectorAll('#grid [data-state=unknown]').length") == 2
    fleet.why = None
    tab.until("document.getElementById('banner').hidden")
    tab.until("document.querySelectorAll('#grid [data-state=free]').length === 2")
    tab.close()


def test_nothing_moves_for_who_asked_for_that(fleet: Fleet, url: str, browser: Chromium) -> None:
    fleet.node(node("alpha").with_gpus(1).annotation_path())
    tab = opened(browser, url)
    tab.until(f"{CELLS} === 1")
    fleet.pod(pod("one").wants(gpus=1).on("alpha").assigned({"main": [gpu_id("alpha", 0)]}))
    tab.until("document.querySelectorAll('#grid [data-new]').length === 1")

    assert tab.evaluate("document.getAnimations().length") == 0
    tab.close()
