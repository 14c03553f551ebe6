"""The page over HTTP: what may be asked, and what headers keep browsers from."""

from __future__ import annotations

import gzip
import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files

import pytest

from extender.page.site import Site
from service.metrics import new_registry
from service.side_port import SidePort
from tests.builders import gpu_id, node
from tests.page.fleet import Fleet

#: What would let text become code.
_DANGEROUS = re.compile(
    r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function|"
    r"setTimeout\(\s*[\"'`]|\.srcdoc|javascript:|style=|\son[a-z]+="
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The side port of a process with one node."""
    site = Site(Fleet(node("node-0").with_gpus(2).annotation_path()).feed)
    side = SidePort(
        "127.0.0.1", 0, registry=new_registry("test"), ready=lambda: None, site=site.answer
    )
    yield side.start()
    side.stop()


def ask(
    port: int, path: str, *, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"Host": f"localhost:{port}", **named})
        answer = connection.getresponse()
        return answer, answer.read()


@pytest.mark.parametrize(
    "path", ["/", "/page/main.js", "/page/state", "/page/node?name=nobody", "/nothing"]
)
def test_every_answer_has_the_headers(port: int, path: str) -> None:
    answer, _ = ask(port, path)

    policy = dict(
        part.split(" ", 1) for part in (answer.headers["Content-Security-Policy"]).split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Set-Cookie"] is None


def test_state_details_and_devices(port: int) -> None:
    _, state = ask(port, "/page/state")
    version = json.loads(state)["version"]
    _, same = ask(port, f"/page/state?since={version}")
    _, packed = ask(port, "/page/state", accept_encoding="gzip")
    _, details = ask(port, "/page/node?name=node-0")
    _, place = ask(port, f"/page/device?id={gpu_id('node-0', 1)}")

    assert json.loads(state)["nodes"][0]["name"] == "node-0"
    assert json.loads(same)["nodes"] == []
    assert gzip.decompress(packed) == state
    assert json.loads(details)["devices"][0]["id"] == gpu_id("node-0", 0)
    assert json.loads(place) == {"node": "node-0", "cell": 1}
    assert ask(port, "/page/node?name=other")[1] == b"null"
    assert ask(port, "/page/device?id=GPU-x")[1] == b"null"


def test_files_are_asked_for_again_only_when_they_changed(port: int) -> None:
    first, body = ask(port, "/")
    again, nothing = ask(port, "/", if_none_match=first.headers["ETag"])

    assert body.startswith(b"<!doctype html>")
    assert first.headers["Content-Type"] == "text/html; charset=utf-8"
    assert (again.status, nothing) == (304, b"")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3", "x.gpudetour-system.svc:8080"]
)
def test_names_that_are_meant_here(port: int, host: str) -> None:
    assert ask(port, "/page/state", host=host)[0].status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "svc", "", "1.2"])
def test_a_site_that_points_its_name_here_learns_nothing(port: int, host: str) -> None:
    answer, body = ask(port, "/page/state", host=host)

    assert answer.status == 421
    assert b"node-0" not in body
    # Probes and scrapes are not people.
    assert ask(port, "/healthz", host=host)[0].status == 200


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/../site.py", "/page/site.py", "/page/%2e%2e/site.py", "//x/page", "/x"],
)
def test_there_is_nothing_else(port: int, path: str) -> None:
    assert ask(port, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    assert ask(port, "/page/state", method=method)[0].status == 501


def test_queries_of_any_kind_are_answered(port: int) -> None:
    fields = "&".join(f"f{number}=1" for number in range(99))

    assert ask(port, f"/page/state?{fields}")[0].status == 400
    assert ask(port, "/page/state?since=%ff%00&since=x&")[0].status == 200
    assert ask(port, "/page/node?name=" + "n" * 9000)[1] == b"null"


def test_files_hold_no_code_in_text_and_nothing_from_elsewhere() -> None:
    for entry in files("extender.page").joinpath("static").iterdir():
        text = entry.read_text()

        assert not _DANGEROUS.search(text), entry.name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), entry.name
        assert len(text.splitlines()) <= 400, entry.name
