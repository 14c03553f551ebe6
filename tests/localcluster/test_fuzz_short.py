"""The fuzzer itself, and a few thousand of its requests."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from localcluster.fuzz import seeds
from localcluster.fuzz.asking import Sent, Wrong
from localcluster.fuzz.campaign import PIECE, Piece, pieces, quiet, send
from localcluster.fuzz.mutations import mutate
from localcluster.fuzz.targets import TARGETS
from localcluster.fuzz.webhook_target import WebhookTarget


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    quiet()
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("target", TARGETS)
def test_wrong_requests_are_answered_in_order(target: str) -> None:
    seen = send(Piece(target=target, seed=7, first=0, number=1500))

    assert [str(failure) for failure in seen.failures] == []
    assert seen.outcomes.total() == 1500
    # Some come so far that the application has something to decide, and some do not.
    kinds = {outcome for _, outcome in seen.outcomes}
    if target == "webhook":
        assert {"400", "415", "mutated", "refused", "unchanged"} <= kinds
    else:
        assert {"filter: answered", "filter: error", "preempt: answered", "bind: error"} <= kinds


def test_the_seeds_themselves_are_right() -> None:
    target = WebhookTarget()
    outcomes = {target.answered(Sent(path="/mutate", body=body)) for body in seeds.reviews()}

    assert outcomes <= {"mutated", "unchanged", "refused"}
    assert "mutated" in outcomes


@given(seed=st.integers(), number=st.integers(0, 10**6))
def test_a_seed_tells_the_whole_request(seed: int, number: int) -> None:
    one, other = (mutate(Random(f"{seed}/{number}"), seeds.reviews()) for _ in range(2))  # noqa: S311

    assert one == other


@given(first=st.integers(0, 5 * PIECE), inputs=st.integers(1, 5 * PIECE))
def test_pieces_hold_every_request_once_and_begin_where_they_always_do(
    first: int, inputs: int
) -> None:
    cut = list(pieces("webhook", seed=1, first=first, inputs=inputs))

    assert cut[0].first == first
    assert sum(piece.number for piece in cut) == inputs
    for before, after in pairwise(cut):
        assert before.first + before.number == after.first
        assert after.first % PIECE == 0


class Broken(WebhookTarget):
    """A webhook that fails, in one way or another, where somebody asks for a share."""

    def __init__(self, status: str | None) -> None:
        super().__init__()
        self._ours, self._status = self._app, status
        self._app = self._fail

    def _fail(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        if b"gpudetour.io/gpu-memory" not in body:
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [b"no\n"]
        if self._status is None:
            raise KeyError("spec")
        start_response(self._status, [("Content-Type", "text/html")])
        return [b"<html>"]


@pytest.mark.parametrize(
    ("status", "fault"),
    [(None, "KeyError: 'spec'"), ("500 Oops", "Wrong: 500"), ("200 OK", "Wrong: 200 of type")],
)
def test_a_fault_is_found_with_the_body_and_the_way_to_see_it_again(
    status: str | None, fault: str
) -> None:
    targets = {"webhook": lambda: Broken(status)}
    (failure,) = send(
        Piece(target="webhook", seed=3, first=2000, number=500), targets=targets
    ).failures

    assert fault in failure.fault
    assert b"gpudetour.io/gpu-memory" in failure.body
    told = re.search(r"--seed=3 --first=2000 --inputs=(\d+)", str(failure))
    assert told is not None
    (again,) = send(
        Piece(target="webhook", seed=3, first=2000, number=int(told[1])), targets=targets
    ).failures
    assert again.body == failure.body
    assert base64.b64encode(failure.body).decode() in str(failure)


def test_an_answer_that_changes_again_the_second_time_is_wrong() -> None:
    class Restless(WebhookTarget):
        def _reviewed(self, sent: Sent, got: Any) -> Any:
            response, pod = super()._reviewed(sent, got)
            return {**response, "patch": "W10="}, pod

    review = json.loads(seeds.reviews()[0])
    with pytest.raises(Wrong, match="changes it again"):
        Restless().answered(Sent(path="/mutate", body=json.dumps(review).encode()))


def test_the_command_counts_on_all_processes_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "localcluster.fuzz", "--inputs=60", "--processes=2"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "120 requests" in done.stdout
    assert "0 not in order" in done.stdout
