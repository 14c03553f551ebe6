"""What the trial pod proves, whatever comes back."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.errors import ApiError, api_error
from localcluster import shipped
from tests.manifests.choices import closing_webhook
from tests.webhook.mutating import mutator
from tests.webhook.reviews import Raw
from webhook import canary_verdict
from webhook.canary_trials import TrialPod, trial_pods
from webhook.canary_verdict import Outcome, cause, of_pod, of_refusal
from webhook.mutate import Mutated

MUTATOR = mutator()
CLOSING = replace(MUTATOR, policy=replace(MUTATOR.policy, close_others=True))
ALL = list(trial_pods(CLOSING))
ASKING = ALL[0]
every_trial = pytest.mark.parametrize("tried", ALL, ids=[tried.webhook for tried in ALL])


def admitted(tried: TrialPod) -> Raw:
    """The trial pod as our own webhook answers it."""
    outcome = tried.mutate(tried.pod)
    assert isinstance(outcome, Mutated)
    return copy.deepcopy(outcome.pod)


def stored(tried: TrialPod) -> Raw:
    """The same with what the API server and others add to any pod."""
    pod = admitted(tried)
    pod["metadata"] |= {"uid": "u", "namespace": "gpudetour-canary", "creationTimestamp": "x"}
    pod["metadata"].setdefault("labels", {})["team"] = "x"
    pod["spec"] |= {"dnsPolicy": "ClusterFirst", "serviceAccountName": "default"}
    pod["spec"].setdefault("tolerations", []).insert(0, {"key": "x", "operator": "Exists"})
    for container in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]):
        container["terminationMessagePath"] = "/dev/termination-log"
        container["env"].insert(0, {"name": "PROXY", "value": "x"})
    return pod


def pointers(tried: TrialPod) -> list[str]:
    """JSON pointers to every single thing that the webhook writes into the trial pod."""
    found = []
    for operation in jsonpatch.make_patch(tried.pod, admitted(tried)).patch:
        found += list(_leaves(operation["path"], operation["value"]))
    return found


def _leaves(path: str, value: Any) -> Any:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _leaves(f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}", inner)
    else:
        yield path


WRITTEN = [(tried, pointer) for tried in ALL for pointer in pointers(tried)]


def test_there_is_a_trial_for_each_webhook_that_can_be_called() -> None:
    without_class = list(trial_pods(mutator({})))

    assert [tried.webhook for tried in trial_pods(MUTATOR)] == [
        "pods.gpudetour.io",
        "runtime.gpudetour.io",
    ]
    assert [tried.webhook for tried in ALL][2:] == ["others.gpudetour.io"]
    assert [tried.webhook for tried in without_class] == ["pods.gpudetour.io"]


@every_trial
def test_what_our_webhook_answers_is_admitted_whatever_others_add(tried: TrialPod) -> None:
    assert of_pod(tried, stored(tried)).outcome is Outcome.ADMITTED
    assert not of_pod(tried, stored(tried)).harmful


def test_everything_that_can_be_is_written_into_the_first_trial_pod() -> None:
    named = " ".join(pointers(ASKING))

    for part in (
        *("/metadata/labels", "/metadata/annotations", "/spec/nodeSelector", "/spec/tolerations"),
        *("/spec/runtimeClassName", "/spec/initContainers/0/env", "/spec/containers/0/env"),
        "/spec/containers/1/env",
    ):
        assert part in named


@pytest.mark.parametrize(("tried", "pointer"), WRITTEN, ids=[pointer for _, pointer in WRITTEN])
@pytest.mark.parametrize("change", ["remove", "replace"])
def test_nothing_that_the_webhook_writes_can_be_undone_unseen(
    tried: TrialPod, pointer: str, change: str
) -> None:
    operation = {"op": change, "path": pointer, "value": "something else"}
    pod = jsonpatch.apply_patch(admitted(tried), [operation])

    assert of_pod(tried, pod).outcome is Outcome.UNDONE


@every_trial
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_an_entry_that_is_added_after_ours_is_seen_and_named(tried: TrialPod, kind: str) -> None:
    pod = stored(tried)
    container = pod["spec"][kind][0]
    container["env"].append({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"})

    verdict = of_pod(tried, pod)

    assert verdict.outcome is Outcome.UNDONE
    assert f"spec.{kind}[{container['name']}].env[NVIDIA_VISIBLE_DEVICES]" in verdict.message


@every_trial
def test_a_pod_that_was_not_changed_at_all_is_told_apart(tried: TrialPod) -> None:
    verdict = of_pod(tried, tried.pod)

    assert verdict.outcome is Outcome.NOT_CALLED
    assert tried.kind in verdict.message
    assert ("does not refuse them" in verdict.message) is tried.guarded


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    metadata=st.dictionaries(st.sampled_from(["labels", "annotations", "name"]), json_values),
    spec=st.dictionaries(st.sampled_from(["containers", "tolerations", "env"]), json_values),
    whole=st.none() | json_values,
)
def test_no_answer_is_too_strange_and_none_is_taken_for_the_right_one(
    metadata: Raw, spec: Raw, whole: Any
) -> None:
    pod = {"metadata": metadata, "spec": spec} if whole is None else whole

    assert of_pod(ASKING, pod).harmful


def refusal(status: int, message: str) -> ApiError:
    return api_error(status, reason="x", message=message)


BY_POLICY = "pods \"canary\" is forbidden: ValidatingAdmissionPolicy 'gpudetour-admitted' with …: "
BY_WEBHOOK = 'Internal error occurred: failed calling webhook "{}": timed out'


@pytest.mark.parametrize(
    ("status", "message", "outcome"),
    [
        (403, BY_POLICY + "gpudetour's webhook did not answer", Outcome.NOT_CALLED),
        (403, BY_POLICY + "another one undid it in: asks", Outcome.UNDONE),
        (500, BY_WEBHOOK.format("pods.gpudetour.io"), Outcome.NOT_CALLED),
        (500, BY_WEBHOOK.format("other.example.com"), Outcome.UNREACHABLE),
        (403, 'pods is forbidden: User "x" cannot create', Outcome.REFUSED),
        (422, "Pod is invalid", Outcome.REFUSED),
        (404, 'namespaces "gpudetour-canary" not found', Outcome.REFUSED),
        (401, "Unauthorized", Outcome.UNREACHABLE),
        (429, "later", Outcome.UNREACHABLE),
        (503, "", Outcome.UNREACHABLE),
    ],
)
def test_refusals_are_told_apart(status: int, message: str, outcome: Outcome) -> None:
    assert of_refusal(ASKING, refusal(status, message)).outcome is outcome


def test_a_foreign_text_is_cut() -> None:
    assert len(of_refusal(ASKING, refusal(403, "x" * 100_000)).message) < 1000


def configuration(client: object) -> Raw:
    return {"webhooks": [{"name": "pods.gpudetour.io", "clientConfig": client}]}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "does not exist"),
        ({}, "does not exist"),
        ({"webhooks": None}, "does not exist"),
        ({"webhooks": [{"name": "other"}]}, "has no pods.gpudetour.io"),
        (configuration(None), "has no caBundle"),
        (configuration({"caBundle": ""}), "has no caBundle"),
        (configuration({"caBundle": "eA=="}), "gets no answer that it takes"),
    ],
)
def test_the_cause_is_told_from_the_configuration(found: Raw | None, told: str) -> None:
    assert told in cause(ASKING, found)


def test_the_names_are_those_of_the_manifests(helm: Path) -> None:
    del helm
    (found,) = shipped.objects("MutatingWebhookConfiguration")
    policies = {item["metadata"]["name"] for item in shipped.objects("ValidatingAdmissionPolicy")}
    added = closing_webhook()

    assert found["metadata"]["name"] == canary_verdict.CONFIGURATION
    assert canary_verdict.POLICY in policies
    assert [tried.webhook for tried in ALL] == [
        webhook["name"] for webhook in [*found["webhooks"], added]
    ]
