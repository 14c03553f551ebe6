"""Each shipped alert fires in the state that it is for, and none fires where nothing is wrong.

The states are those of real processes. promtool evaluates the shipped rules on what was scraped
there, going on as it went for three quarters of an hour.
"""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster.shipped import MANIFESTS
from tests.metrics.scrapes import STEP, State, metrics_in
from tests.metrics.states import GOOD

pytestmark = pytest.mark.controlplane

ALERTS = MANIFESTS / "monitoring" / "alerts.yaml"
OPERATIONS = MANIFESTS.parent / "docs" / "operations.md"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in RULES]


def _fires(rule: dict[str, Any], state: State, *, promtool: Path, folder: Path) -> bool:
    """Whether the alert fires after 40 minutes in a state, by `promtool test rules`."""
    query = (
        f'(count(ALERTS{{alertname="{rule["alert"]}",alertstate="firing"}}) or vector(0)) > bool 0'
    )
    test = {
        "interval": f"{STEP}s",
        "start_timestamp": datetime.fromtimestamp(int(state.second.at), UTC).isoformat(),
        "input_series": list(state.input_series(rule["expr"])),
        "promql_expr_test": [
            {"expr": query, "eval_time": "40m", "exp_samples": [{"labels": "{}", "value": 1}]}
        ],
    }
    path = folder / "test.yaml"
    document = {"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": [test]}
    path.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return True
    assert re.search(r"got:\s*\n?.*\{\} 0(E\+00)?", said), said
    return False


def test_promtool_finds_nothing_wrong_with_the_rules(promtool: Path) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", ALERTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_it_fires_in_its_state_and_not_in_good_health(
    rule: dict[str, Any], states: dict[str, State], promtool: Path, tmp_path: Path
) -> None:
    name = rule["alert"]
    assert _fires(rule, states[name], promtool=promtool, folder=tmp_path)
    assert not _fires(rule, states[GOOD], promtool=promtool, folder=tmp_path)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_everything_that_it_names_is_told_by_some_process(
    rule: dict[str, Any], states: dict[str, State]
) -> None:
    told = {name for state in states.values() for name in state.second.names()}
    assert metrics_in(rule["expr"])
    assert metrics_in(rule["expr"]) <= told


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_it_says_how_bad_it_is_what_happens_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"]["summary"].endswith(".")
    file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (file, anchor) == ("docs/operations.md", rule["alert"].lower())
    assert f"### {rule['alert']}\n" in OPERATIONS.read_text()
