"""Whatever arrives over HTTPS is answered with a clear 4xx or refused, and hurts nobody else."""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from collections.abc import Iterator

import pytest

from certs.authority import KeyPair
from localcluster.bench.wire import Wire, dial
from tests.certs.making import Mounted, authority, server
from tests.fakes.api_server import FakeApiServer
from tests.service.calling import client_context
from tests.service.process import Process
from tests.service.siege import MEBI, resident, worker
from tests.webhook.reviews import pod, review
from tests.webhook.test_webhook_process import listing, webhook

VALID = json.dumps(review(pod())).encode()
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return authority()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, ca: KeyPair) -> Iterator[Process]:
    files = Mounted(tmp_path_factory.mktemp("tls") / "tls")
    files.put(server(ca))
    with FakeApiServer(listing) as api, webhook(files, api.url) as process:
        api.wait_for_requests(2)
        yield process


@pytest.fixture
def wire(serving: Process, ca: KeyPair) -> Iterator[Wire]:
    opened = dial(f"https://127.0.0.1:{serving.port()}", client_context(ca.certificate))
    yield opened
    opened.close()


def post(body: bytes, headers: bytes = JSON, *, length: bytes | None = None) -> bytes:
    told = str(len(body)).encode() if length is None else length
    return (
        b"POST /mutate HTTP/1.1\r\nHost: h\r\n%bContent-Length: %b\r\n\r\n" % (headers, told) + body
    )


def status(wire: Wire) -> int:
    head, body = wire.read()
    assert b"Traceback" not in body
    return int(head.split(b" ", 2)[1])


CHUNKED = b"POST /mutate HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%b\r\n%b"


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        pytest.param(post(VALID), {200}, id="as it should be"),
        pytest.param(post(b"", length=b"8388609"), {413}, id="over the limit"),
        pytest.param(post(b"", length=b"9" * 18), {413}, id="absurdly long"),
        pytest.param(post(b"", length=b"9" * 5000), {400, 411}, id="more digits than are read"),
        pytest.param(CHUNKED % (JSON, b"0\r\n\r\n"), {411}, id="chunked and empty"),
        pytest.param(CHUNKED % (JSON, b"5\r\nabcde\r\n0\r\n\r\n"), {411}, id="chunked"),
        pytest.param(
            CHUNKED % (JSON + b"Content-Length: 5\r\n", b"0\r\n\r\n"), {400, 411}, id="both sizes"
        ),
        pytest.param(
            post(VALID, JSON + b"Content-Length: %d\r\n" % len(VALID)), {400}, id="length twice"
        ),
        pytest.param(post(b"ab", JSON + b"Content-Length: 1\r\n"), {400}, id="two lengths"),
        pytest.param(post(b"", length=b"-1"), {400}, id="negative length"),
        pytest.param(post(b"", length=b"+1"), {400}, id="signed length"),
        pytest.param(post(b"", length=b"0x10"), {400}, id="hexadecimal length"),
        pytest.param(post(VALID, JSON + b"Content-Encoding: gzip\r\n"), {415}, id="gzip"),
        pytest.param(post(VALID, b"Content-Type: text/plain\r\n"), {415}, id="plain text"),
        pytest.param(post(VALID, b""), {415}, id="no content type"),
        pytest.param(post(b""), {400}, id="empty"),
        pytest.param(b"GET /mutate HTTP/1.1\r\nHost: h\r\n\r\n", {405}, id="GET"),
        pytest.param(b"POST /x HTTP/1.1\r\nHost: h\r\n\r\n", {404}, id="another path"),
        pytest.param(b"POST /%00 HTTP/1.1\r\nHost: h\r\n\r\n", {404}, id="NUL in the path"),
        pytest.param(b"nonsense\r\n\r\n", {400}, id="no request line"),
        pytest.param(b"POST /mutate HTTP/9.9\r\n\r\n", {400, 505}, id="another version"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}, id="HTTP/2"),
        pytest.param(post(b"", JSON + b"No colon\r\n"), {400}, id="a header without a colon"),
        pytest.param(post(b"", JSON + b"A: \0\r\n"), {400}, id="NUL in a header"),
        pytest.param(post(b"", JSON + b"A: 1\r\n" * 200), {400, 431}, id="200 headers"),
        pytest.param(post(b"", b"A: " + b"a" * 20_000 + b"\r\n"), {400, 431}, id="a long header"),
        pytest.param(
            b"POST /%b HTTP/1.1\r\n\r\n" % (b"a" * 9000), {400, 414}, id="a long request line"
        ),
        pytest.param(post(b"\xff\xfe" + VALID), {400}, id="not UTF-8"),
        pytest.param(post(b"\xef\xbb\xbf" + VALID), {400}, id="a byte order mark"),
        pytest.param(post(b"[" * 100_000), {400}, id="deep"),
        pytest.param(post(b'{"request":' * 100_000), {400}, id="deep objects"),
        pytest.param(post(b"[]"), {400}, id="a list"),
        pytest.param(post(b'"' + b"a" * 1_000_000 + b'"'), {400}, id="a long string"),
        pytest.param(post(VALID.replace(b'"default"', b"NaN")), {400}, id="NaN"),
        pytest.param(post(b"1e999"), {400}, id="a number beyond all numbers"),
        pytest.param(post(VALID[:-1]), {400}, id="cut off"),
        pytest.param(
            post(VALID.replace(b'{"kind"', b'{"kind": "X", "kind"', 1)), {200}, id="key twice"
        ),
    ],
)
def test_a_request_is_answered_clearly(
    serving: Process, wire: Wire, ca: KeyPair, request_: bytes, statuses: set[int]
) -> None:
    wire.write(request_)

    assert status(wire) in statuses
    # Whatever becomes of that connection, others are served, and nobody has to look at a log.
    other = dial(f"https://127.0.0.1:{serving.port()}", client_context(ca.certificate))
    try:
        other.write(post(VALID))
        assert status(other) == 200
    finally:
        other.close()
    assert [record for record in serving.records if record.get("level") == "error"] == []


def test_requests_that_come_together_are_answered_in_order(wire: Wire) -> None:
    wire.write(post(VALID) + post(b"[]") + post(VALID))

    assert [status(wire) for _ in range(3)] == [200, 400, 200]


def test_http_1_0_is_answered_and_closed(wire: Wire) -> None:
    wire.write(post(VALID).replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert status(wire) == 200
    with pytest.raises(ConnectionError):
        wire.read()


def test_a_client_that_waits_to_be_told_to_go_on_is_served(wire: Wire) -> None:
    wire.write(post(VALID, JSON + b"Expect: 100-continue\r\n"))
    told = wire._until(b"\r\n\r\n")

    assert told.startswith(b"HTTP/1.1 100 ")
    assert status(wire) == 200


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(serving: Process, version: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with (
        socket.create_connection(("127.0.0.1", serving.port()), timeout=15) as raw,
        pytest.raises(ssl.SSLError, match=r"(?i)version"),
    ):
        context.wrap_socket(raw)


def test_many_bad_requests_take_no_memory(serving: Process, wire: Wire) -> None:
    pid = worker(serving)
    bad = [post(b"[" * 10_000), post(b'{"a":' * 10_000), post(b'"' + b"a" * 300_000 + b'"')]

    def rounds(number: int) -> int:
        for _ in range(number):
            for each in bad:
                wire.write(each)
                assert status(wire) == 400
        return resident(pid)

    before = rounds(50)
    assert rounds(300) - before < 8 * MEBI
