"""Health and metrics are answered on a plain port."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

import urllib3
from prometheus_client import Counter

from localcluster.waiting import until
from service.metrics import new_registry
from service.side_port import CONNECTIONS, SidePort


def get(port: int, path: str) -> tuple[int, str]:
    with urllib3.PoolManager(retries=False, timeout=10.0) as pool:
        response = pool.request("GET", f"http://127.0.0.1:{port}{path}")
        return response.status, response.data.decode()


def test_each_path_has_its_answer() -> None:
    registry = new_registry("test")
    Counter("gpudetour_seen", "Seen", registry=registry).inc(3)
    reasons: list[str | None] = ["still starting"]
    side = SidePort(
        "127.0.0.1",
        0,
        registry=registry,
        ready=lambda: reasons[-1],
        routes={"/ledger": lambda: ("application/json", b"{}")},
    )
    port = side.start()
    try:
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/readyz") == (503, "still starting\n")
        reasons.append(None)
        assert get(port, "/readyz?verbose") == (200, "ok\n")
        assert get(port, "/ledger") == (200, "{}")
        assert get(port, "/other") == (404, "not found\n")
        status, text = get(port, "/metrics")
    finally:
        side.stop()

    assert status == 200
    assert "gpudetour_seen_total 3.0" in text
    assert 'gpudetour_build_info{component="test",version="' in text
    assert "process_resident_memory_bytes" in text


def test_a_failing_route_is_an_internal_error_and_the_port_goes_on() -> None:
    def broken() -> tuple[str, bytes]:
        raise RuntimeError("boom")

    side = SidePort(
        "127.0.0.1",
        0,
        registry=new_registry("test"),
        ready=lambda: None,
        routes={"/broken": broken},
    )
    port = side.start()
    try:
        assert get(port, "/broken") == (500, "internal error\n")
        assert get(port, "/healthz") == (200, "ok\n")
    finally:
        side.stop()
    side.stop()


def test_probes_are_answered_among_peers_that_hold_connections() -> None:
    side = SidePort("127.0.0.1", 0, registry=new_registry("test"), ready=lambda: None)
    before = threading.active_count()
    port = side.start()
    try:
        with ExitStack() as stack:
            peers = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                for _ in range(4 * CONNECTIONS)
            ]
            assert get(port, "/readyz") == (200, "ok\n")
            assert peers[0].recv(1) == b""
            # The newest threads and the server's own, when the others have come to their end.
            until(
                lambda: threading.active_count() - before < 2 * CONNECTIONS,
                timeout=20,
                what="the end of the threads of closed connections",
            )
    finally:
        side.stop()
