"""What the page costs: a real browser on a real extender, on a control plane full of GPU nodes.

How long a person looks at nothing, and how many bytes go over the wire at first and at each change.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from localcluster.bench.fleet import GPUS, PODS
from localcluster.bench.page_figures import Load, PageSeen
from localcluster.bench.site import Site
from localcluster.bench.systems import System
from localcluster.chromium import Chromium, find_chromium
from localcluster.parts.progress import Progress
from localcluster.waiting import until

_PATIENCE = 120.0
_OPTIONS = {"--page": None}
#: Notes when the first frame with a GPU was drawn, in milliseconds since navigation began.
_WATCH = """
new MutationObserver((_, watch) => {
  if (!document.querySelector('#grid [role=gridcell]')) return;
  watch.disconnect();
  requestAnimationFrame(() => requestAnimationFrame((at) => { window.drawn = at; }));
}).observe(document, { childList: true, subtree: true });
"""
_CELLS = "document.querySelectorAll('#grid [role=gridcell]').length"
_BYTES = (
    "performance.getEntriesByType('resource')"
    ".concat(performance.getEntriesByType('navigation'))"
    ".reduce((sum, entry) => sum + entry.transferSize, 0)"
)
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePlan:
    """On how many nodes, and how often the page is loaded anew."""

    nodes: int
    loads: int


FULL = PagePlan(nodes=1000, loads=5)
QUICK = PagePlan(nodes=100, loads=1)


def can_look() -> bool:
    """Whether there is a browser here."""
    return find_chromium() is not None


def measure_page(plan: PagePlan, *, progress: Progress) -> PageSeen:
    """Run everything. Raises `BrowserError` where there is no browser."""
    with (
        progress.task("page") as tell,
        Site(System.ANNOTATION, plan.nodes, filled=True, tell=tell) as site,
        Chromium() as browser,
    ):
        stack = site.placement.stack
        assert stack is not None  # noqa: S101  # the annotation path has one
        stack.stop("extender")
        stack.start_extender(_OPTIONS)
        url = stack.side_url("extender")
        tell("loading the page")
        loads = [_load(browser, url, plan.nodes * GPUS) for _ in range(plan.loads)]
        viewer = _Viewer(url)
        before = until(viewer.told, timeout=_PATIENCE, what="a replica that knows the holders")
        tell("one pod ends")
        (one,) = site.cluster.api.get(PODS, limit="1")["items"]
        site.cluster.api.delete(f"{PODS}/{one['metadata']['name']}", grace_seconds=0)
        small = until(lambda: _news(viewer, before, 1), timeout=_PATIENCE, what="news of a pod")
        tell("all pods end")
        site.clear()
        changed = len(_holding(before))
        large = until(lambda: _news(viewer, before, changed), timeout=_PATIENCE, what="all news")
        tell("loading as much from a file")
        with _file_of(round(loads[0].bytes)) as plain:
            floor = [_load_file(browser, plain) for _ in range(plan.loads)]
        return PageSeen(
            nodes=plan.nodes, loads=loads, file=floor, update=small.size, largest=large.size
        )


def _load(browser: Chromium, url: str, cells: int) -> Load:
    """Load the page as somebody does who was never there."""
    tab = browser.tab()
    tab.call("Network.setCacheDisabled", {"cacheDisabled": True})
    tab.call("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
    tab.go(f"{url}/")
    drawn = tab.until("window.drawn", timeout=_PATIENCE)
    tab.until(f"{_CELLS} === {cells}", timeout=_PATIENCE)
    load = Load(painted=drawn / 1000, bytes=int(tab.evaluate(_BYTES)))
    tab.close()
    return load


def _load_file(browser: Chromium, url: str) -> float:
    """Return the seconds until anything of a page of one file is drawn."""
    tab = browser.tab()
    tab.call("Network.setCacheDisabled", {"cacheDisabled": True})
    tab.go(url)
    painted = tab.until(_PAINTED, timeout=_PATIENCE)
    tab.close()
    return float(painted) / 1000


@dataclass(frozen=True, slots=True)
class _Seen:
    """An answer, and its size in bytes as it was sent."""

    message: dict[str, Any]
    size: int


class _Viewer:
    """Asks as the page does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(retries=False, timeout=_PATIENCE)

    def look(self, since: str = "") -> _Seen:
        """Return what changed since a version."""
        path = f"{self._url}/page/state?since={since}"
        headers = {"Accept-Encoding": "gzip"}
        answer = self._pool.request("GET", path, headers=headers, preload_content=False)
        packed = answer.read(decode_content=False)
        return _Seen(json.loads(decompress(packed)), len(packed))

    def told(self) -> _Seen | None:
        """Return everything, once it is told who holds what."""
        seen = self.look()
        return seen if seen.message["why"] is None else None


def _news(viewer: _Viewer, before: _Seen, nodes: int) -> _Seen | None:
    """Return what changed since then, once that is so many nodes."""
    seen = viewer.look(before.message["version"])
    return seen if len(seen.message["nodes"]) >= nodes else None


def _holding(seen: _Seen) -> list[str]:
    """Return the nodes on which somebody holds something."""
    return [
        node["name"]
        for node in seen.message["nodes"]
        if any(cell.get("holders") for cell in node["cells"])
    ]


@contextmanager
def _file_of(size: int) -> Iterator[str]:
    """Serve one HTML file of so many bytes; returns its URL."""
    line = b"<p>gpu-node-00000 is as good as any other text to fill a page with</p>\n"
    content = (b"<!doctype html><title>file</title>" + line * (size // len(line) + 1))[:size]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
