"""Whatever is sent to the application, it answers in order, and its ledger stays as it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.builders import pod
from tests.extender.port import Port, args, binding
from tests.fakes.binding_api import BindingApi

VERBS = ("filter", "prioritize", "bind", "preempt")
#: What a request for one verb is made of; `preempt` has its victims by node.
VICTIMS = {"a": {"Pods": [{"UID": "uid-v"}], "NumPDBViolations": 0}}
VALID: dict[str, Any] = {
    "filter": args("a", "b"),
    "prioritize": args("a", "b"),
    "bind": binding("nowhere"),
    "preempt": {"Pod": args()["Pod"], "NodeNameToMetaVictims": VICTIMS},
}

#: Words that mean something here, in places where they may mean nothing.
WORDS = st.sampled_from(
    [
        *(
            "nvidia.com/gpu",
            "nvidia.com/mig-1g.10gb",
            "gpudetour.io/gpu-memory",
            "metadata",
            "spec",
        ),
        *("gpudetour.io/product", "gpudetour.io/topology", "gpudetour.io/assigned", "containers"),
        *("resources", "limits", "1", "-1", "8Gi", "1e400", "9" * 400, "*", "[", "\u0000", "a", ""),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with BindingApi(pod("p").wants(gpus=1)) as api:
        port = Port(api)
        yield port
        port.peer.end()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value inside a JSON value, its own included."""
    yield path
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, child in inner:
        yield from places(child, (*path, key))


@st.composite
def nearly_valid(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request of kube-scheduler in which up to three values became others."""
    verb = draw(st.sampled_from(VERBS))
    body = copy.deepcopy(VALID[verb])
    for _ in range(draw(st.integers(min_value=1, max_value=3))):
        *parents, last = draw(st.sampled_from([p for p in places(body) if p]))
        target = body
        for key in parents:
            target = target[key]
        if isinstance(target, dict) and draw(st.booleans()):
            del target[last]
            target[draw(WORDS | st.text(max_size=10))] = draw(JSON)
        else:
            target[last] = draw(JSON)
    return verb, json.dumps(body).encode()


EXAMPLES = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(port: Port, verb: str, body: bytes) -> None:
    with capture_logs() as records:
        answer = port.client.post(
            f"/{verb}", data=body, environ_base={"gunicorn.socket": port.peer}
        )
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    decoded = json.loads(answer.data)
    error = decoded.get("Error", "") if isinstance(decoded, dict) else ""
    assert "internal error" not in error, [record.get("exc_info") for record in records]
    assert "Traceback" not in error


@EXAMPLES
@given(request=nearly_valid())
def test_a_request_that_is_nearly_right_is_answered(port: Port, request: tuple[str, bytes]) -> None:
    check(port, *request)


@EXAMPLES
@given(
    verb=st.sampled_from(VERBS),
    body=st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()),
)
def test_a_body_of_anything_is_answered(port: Port, verb: str, body: bytes) -> None:
    check(port, verb, body)


@EXAMPLES
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X"]),
    path=st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=30).map(
        lambda p: f"/{p}"
    ),
    body=st.binary(max_size=50),
    headers=st.dictionaries(
        st.sampled_from(["Content-Type", "Host", "Accept", "Cookie", "X-Forwarded-For", "Expect"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    ),
)
def test_other_paths_and_methods_are_refused_with_a_text(
    port: Port, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    # As a server gives it to WSGI: the client would take what follows "//" for a host.
    wsgi = {"PATH_INFO": path.encode().decode("latin-1"), "gunicorn.socket": port.peer}
    answer = port.client.open(
        "/", method=method, data=body, headers=headers, environ_overrides=wsgi
    )

    if path[1:] in VERBS and method in ("POST", "OPTIONS"):
        assert answer.status_code == 200
        return
    assert 300 <= answer.status_code < 500
    assert b"Traceback" not in answer.data


@pytest.mark.parametrize("verb", VERBS)
def test_depth_and_length_beyond_reason_are_answered(port: Port, verb: str) -> None:
    deep = b"[" * 100_000
    for body in (
        deep,
        b'{"Pod":' * 50_000,
        b'{"NodeNames":' + deep,
        b'"' + b"a" * 5_000_000 + b'"',
    ):
        check(port, verb, body)
