"""What kube-scheduler sends and gets, and everything else that may arrive at the port."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.protocol import (
    ExtenderBindingResult,
    ExtenderFilterResult,
    Failure,
    HostPriority,
    ProtocolError,
    decode_args,
    decode_binding_args,
    encode,
)
from gpus.model import NodeName
from tests.builders import pod

POD = pod("p").wants(gpus=1).raw()
BINDING = {"PodName": "p", "PodNamespace": "default", "PodUID": "uid-p", "Node": "n"}


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_the_names_on_the_wire_are_those_of_the_go_types() -> None:
    args = body({"Pod": POD, "Nodes": None, "NodeNames": ["a", "b"]})

    read, names = decode_args(args)

    assert (read.metadata.uid, set(names)) == ("uid-p", {"a", "b"})
    filtered = ExtenderFilterResult(
        node_names=[NodeName("a")],
        failed_nodes={NodeName("b"): "busy"},
        failed_and_unresolvable_nodes={NodeName("c"): "none"},
    )
    assert json.loads(encode(filtered)) == {
        "NodeNames": ["a"],
        "FailedNodes": {"b": "busy"},
        "FailedAndUnresolvableNodes": {"c": "none"},
    }
    assert json.loads(encode([HostPriority(host=NodeName("a"), score=10)])) == [
        {"Host": "a", "Score": 10}
    ]
    assert json.loads(encode(ExtenderBindingResult())) == {"Error": ""}
    assert json.loads(encode(Failure(error="why"))) == {"Error": "why"}


def test_no_node_left_is_an_empty_list_and_not_its_absence() -> None:
    assert json.loads(encode(ExtenderFilterResult(node_names=[]))) == {"NodeNames": []}


def test_bind_carries_the_uid() -> None:
    args = decode_binding_args(body(BINDING))

    assert (args.pod_name, args.pod_namespace, args.pod_uid, args.node) == (
        *("p", "default", "uid-p", "n"),
    )


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "empty"),
        (b"null", "not what kube-scheduler sends"),
        (b"[]", "not what kube-scheduler sends"),
        (b'"text"', "not what kube-scheduler sends"),
        (b"{", "not what kube-scheduler sends"),
        (b"\xef\xbb\xbf{}", "not what kube-scheduler sends"),
        (b'{"Pod": "\xff"}', "not what kube-scheduler sends"),
        (b'{"Pod": NaN}', "not what kube-scheduler sends"),
        (b"[" * 100_000, "nested too deeply|not what"),
        (b'{"Pod":' * 10_000, "nested too deeply|not what"),
        (b"{}", "Pod is missing"),
        (body({"Pod": None, "NodeNames": []}), "Pod is missing"),
        (body({"Pod": {}, "NodeNames": []}), "name, namespace and uid"),
        (body({"Pod": {"metadata": {"name": "p"}}, "NodeNames": []}), "name, namespace and uid"),
        (body({"Pod": POD, "Nodes": None, "NodeNames": None}), "nodeCacheCapable: true"),
        (body({"Pod": POD, "Nodes": {"items": [{}]}}), "nodeCacheCapable: true"),
        (body({"Pod": POD, "NodeNames": "a"}), "NodeNames"),
        (body({"Pod": {**POD, "spec": {"containers": 1}}, "NodeNames": []}), "containers"),
        (body({"pod": POD, "nodeNames": ["a"]}), "Pod is missing"),
    ],
)
def test_bodies_of_filter_that_mean_nothing_are_told_what_is_wrong(sent: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode_args(sent)


@pytest.mark.parametrize("missing", BINDING)
@pytest.mark.parametrize("value", ["", None])
def test_a_bind_must_be_complete(missing: str, value: str | None) -> None:
    with pytest.raises(ProtocolError, match=r"PodName|not what"):
        decode_binding_args(body({**BINDING, missing: value}))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(sent: bytes) -> None:
    for decode in (decode_args, decode_binding_args):
        with pytest.raises(ProtocolError):
            decode(sent)


def test_ten_thousand_names_and_names_that_come_twice_are_read() -> None:
    names = [f"node-{i}" for i in range(10_000)] * 2

    read = decode_args(body({"Pod": POD, "NodeNames": names}))[1]

    assert ("node-77" in read, "node-7777777" in read, "node" in read) == (True, False, False)
    assert (len(read), set(read)) == (10_000, set(names))


@pytest.mark.parametrize("text", [r'["\u0061"]', '["a", "b\\u002d"]', '[ "a" ]'])
def test_a_name_is_found_however_it_is_written(text: str) -> None:
    names = decode_args(body({"Pod": POD})[:-1] + b', "NodeNames": ' + text.encode() + b"}")[1]

    assert ("a" in names, "c" in names) == (True, False)


@pytest.mark.parametrize("names", [[1], [None], [["a"]], [{"a": "b"}]])
def test_names_that_are_none_are_refused_when_they_are_read(names: object) -> None:
    read = decode_args(body({"Pod": POD, "NodeNames": names}))[1]

    with pytest.raises(ProtocolError):
        list(read)


def test_duplicate_keys_and_unknown_fields_do_no_harm() -> None:
    sent = body({"Pod": POD, "NodeNames": ["a"], "Later": 1})[:-1] + b', "NodeNames": ["b"]}'

    assert set(decode_args(sent)[1]) == {"b"}
