"""How often the canary tries, and what it tells of what it finds."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
from structlog.testing import capture_logs

from webhook.canary import Canary, Pace
from webhook.canary_verdict import Outcome, Verdict


def verdict(outcome: Outcome) -> Verdict:
    return Verdict(outcome=outcome, message=f"text of {outcome}")


def told(script: Iterable[Outcome | Exception]) -> list[Outcome]:
    """What a canary tells whose trials end like this; it is stopped after the last."""
    stop = threading.Event()
    left = list(script)
    heard: list[Outcome] = []

    def trial() -> Verdict:
        now = left.pop(0)
        if not left:
            stop.set()
        if isinstance(now, Exception):
            raise now
        return verdict(now)

    def tell(found: Verdict) -> None:
        heard.append(found.outcome)

    Canary(trial, tell=tell, pace=Pace(interval=0, retry=0, jitter=lambda: 1.0)).run(stop)
    assert not left
    return heard


GOOD, SILENT, UNDONE = Outcome.ADMITTED, Outcome.NOT_CALLED, Outcome.UNDONE


def test_each_good_trial_is_told() -> None:
    assert told([GOOD, GOOD, GOOD]) == [GOOD, GOOD, GOOD]


@pytest.mark.parametrize("bad", [outcome for outcome in Outcome if outcome is not GOOD])
def test_a_bad_trial_is_told_only_when_it_was_repeated(bad: Outcome) -> None:
    assert told([bad, GOOD, bad, bad, GOOD]) == [GOOD, bad, GOOD]


def test_the_second_finding_is_the_one_that_is_told() -> None:
    assert told([SILENT, UNDONE, GOOD]) == [UNDONE, GOOD]


def test_a_fault_of_the_canary_itself_is_logged_and_it_goes_on() -> None:
    with capture_logs() as logs:
        assert told([RuntimeError("bug"), GOOD]) == [GOOD]

    assert [one["event"] for one in logs if one["log_level"] == "error"] == ["canary failed"]


def test_only_what_is_new_is_logged() -> None:
    with capture_logs() as logs:
        told([GOOD, GOOD, SILENT, SILENT, SILENT, SILENT, GOOD])

    assert [one["log_level"] for one in logs] == ["info", "error", "info"]
    assert logs[1]["reason"] == "text of not_called"


def test_the_first_trial_does_not_wait_for_a_whole_interval() -> None:
    stop = threading.Event()
    tried = threading.Event()

    def trial() -> Verdict:
        tried.set()
        return verdict(GOOD)

    pace = Pace(interval=3600, retry=0.001, jitter=lambda: 1.0)
    thread = threading.Thread(
        target=Canary(trial, tell=lambda _verdict: None, pace=pace).run, args=(stop,)
    )
    thread.start()
    assert tried.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
