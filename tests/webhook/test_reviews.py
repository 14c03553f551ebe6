"""What the endpoint answers: reviews, refusals, and clear words to everything else."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.metrics import new_registry
from tests.webhook.mutating import mutator
from tests.webhook.reviews import GPU, UID, patched, pod, review
from webhook.app import create_app
from webhook.metrics import Metrics


class Endpoint:
    """The application without a server, and its metrics."""

    def __init__(self, *, close_others: bool = True) -> None:
        self.registry = new_registry("webhook")
        self.reason: str | None = None
        app = create_app(
            mutator(close_others=close_others),
            metrics=Metrics(self.registry),
            not_ready=lambda: self.reason,
        )
        self.client: FlaskClient = app.test_client()

    def post(self, body: Any, *, way: str = "mutate", **headers: str) -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": "application/json"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"/{way}?timeout=3s", data=data, headers=named)

    def response(self, body: Any, *, way: str = "mutate") -> dict[str, Any]:
        answer = self.post(body, way=way)
        assert (answer.status_code, answer.content_type) == (200, "application/json")
        decoded = json.loads(answer.data)
        assert (decoded["apiVersion"], decoded["kind"]) == (
            "admission.k8s.io/v1",
            "AdmissionReview",
        )
        response: dict[str, Any] = decoded["response"]
        assert response["uid"] == UID
        return response

    def counted(self, result: str) -> float | None:
        return self.registry.get_sample_value(
            "gpudetour_webhook_requests_total", {"result": result}
        )


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_a_gpu_pod_is_allowed_with_a_patch(endpoint: Endpoint) -> None:
    response = endpoint.response(review(pod()))

    assert response.keys() == {"uid", "allowed", "patch", "patchType"}
    assert response["allowed"] is True
    assert patched(pod(), response)["spec"]["runtimeClassName"] == "nvidia"
    assert endpoint.counted("mutated") == 1


@pytest.mark.parametrize("more", [{"dryRun": True}, {"dryRun": None}, {"future": {"field": 1}}])
def test_dry_runs_and_fields_of_later_releases_change_nothing(
    endpoint: Endpoint, more: dict[str, Any]
) -> None:
    assert endpoint.response(review(pod(), **more)) == endpoint.response(review(pod()))


def test_a_pod_without_gpus_is_allowed_without_a_patch(endpoint: Endpoint) -> None:
    plain = pod(containers=[{"name": "main"}])

    assert endpoint.response(review(plain)) == {"uid": UID, "allowed": True}
    assert endpoint.counted("unchanged") == 1


def test_warnings_reach_the_user(endpoint: Endpoint) -> None:
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    obj = pod()
    obj["spec"]["containers"][0]["env"] = env

    (warning,) = endpoint.response(review(obj))["warnings"]

    assert "NVIDIA_VISIBLE_DEVICES was overruled" in warning


def test_a_refusal_says_why(endpoint: Endpoint) -> None:
    response = endpoint.response(review(pod(nodeName="n1")))

    assert response["allowed"] is False
    assert response["status"]["code"] == 422
    assert response["status"]["message"].startswith("spec.nodeName is 'n1'")
    assert "patch" not in response
    assert endpoint.counted("refused") == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"kind": {"group": "", "version": "v2", "kind": "Pod"}}, "v2/Pod"),
        ({"object": None}, "request.object is missing"),
        ({"object": {}}, "the pod cannot be read"),
        ({"object": {"spec": {}}}, "the pod cannot be read"),
        ({"object": {"metadata": ["x"], "spec": {"containers": []}}}, "the pod cannot be read"),
        (
            {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": None},
            "request.oldObject is missing",
        ),
        (
            {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": {}},
            "the pod cannot be read",
        ),
    ],
)
def test_a_pod_that_cannot_be_read_is_denied(
    endpoint: Endpoint, request_: dict[str, Any], message: str
) -> None:
    response = endpoint.response(review(pod(), **request_))

    assert response["allowed"] is False
    assert message in response["status"]["message"]


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE", "oldObject": pod()},
        {"operation": "DELETE", "object": None, "oldObject": pod()},
        {"operation": "CREATE", "subResource": "binding"},
        {"operation": "CREATE", "subResource": "ephemeralcontainers"},
        {"operation": "UPDATE", "subResource": "resize", "oldObject": pod()},
        {"operation": "x" * 100_000},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "example.com", "version": "v1", "kind": "Pod"}},
        {"kind": {"group": "", "version": "v1", "kind": "k" * 100_000}},
    ],
)
def test_what_is_none_of_our_business_passes_unchanged_with_a_warning(
    endpoint: Endpoint, request_: dict[str, Any]
) -> None:
    response = endpoint.response(review(pod(), **request_))

    assert response["allowed"] is True
    assert "patch" not in response
    (warning,) = response["warnings"]
    assert warning.endswith("check the webhook's rules")
    assert len(warning) <= 256


def test_how_deeply_a_pod_is_nested_where_we_do_not_look_does_not_matter(
    endpoint: Endpoint,
) -> None:
    deep: Any = None
    for _ in range(700):
        deep = {"x": deep}
    plain = endpoint.response(review(pod()))

    assert endpoint.response(review(pod(volumes=deep))) == plain


def test_a_pod_with_500_containers_is_patched_in_each_of_them(endpoint: Endpoint) -> None:
    many = [{"name": f"c{number}", "resources": GPU} for number in range(500)]
    obj = pod(containers=many)

    containers = patched(obj, endpoint.response(review(obj)))["spec"]["containers"]

    keys = [one["env"][0]["valueFrom"]["configMapKeyRef"]["key"] for one in containers]
    assert keys == [one["name"] for one in many]


def test_however_much_is_wrong_the_messages_stay_short(endpoint: Endpoint) -> None:
    unknown = {f"gpudetour.io/{'x' * 1000}{number}": "1" for number in range(50)}
    many = [{"name": f"{n}-{'n' * 1000}", "resources": {"limits": unknown}} for n in range(50)]
    refusal = endpoint.response(review(pod(containers=many, nodeName="n" * 100_000)))
    asking = {"name": "NVIDIA_VISIBLE_DEVICES" + "\n", "value": "all"}
    env = [{"name": f"DOCKER_RESOURCE_{n}_{'x' * 1000}", "value": "all"} for n in range(500)]
    told = endpoint.response(
        review(pod(containers=[{"name": "m", "resources": GPU, "env": [*env, asking]}]))
    )

    message = refusal["status"]["message"]
    assert len(message) < 12_000
    assert message.endswith("faults more")
    assert len(told["warnings"]) == 16
    assert all(len(warning) <= 256 for warning in told["warnings"])


@pytest.mark.parametrize("way", ["mutate", "close"])
def test_a_debug_container_in_a_gpu_pod_is_closed_over_both_ways(
    endpoint: Endpoint, way: str
) -> None:
    obj = pod(ephemeralContainers=[{"name": "debug"}])
    asked = review(obj, operation="UPDATE", subResource="ephemeralcontainers", oldObject=pod())

    stored = patched(obj, endpoint.response(asked, way=way))

    void = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    assert stored["spec"] == {
        **obj["spec"],
        "ephemeralContainers": [{"name": "debug", "env": [void]}],
    }


def test_every_other_pod_is_closed_where_that_is_wanted(endpoint: Endpoint) -> None:
    plain = pod(containers=[{"name": "main"}])

    stored = patched(plain, endpoint.response(review(plain), way="close"))

    assert [one["name"] for one in stored["spec"]["containers"][0]["env"]] == [
        "NVIDIA_VISIBLE_DEVICES"
    ]
    assert endpoint.counted("mutated") == 1


def test_where_nobody_wants_others_closed_a_rule_for_it_is_told_so() -> None:
    endpoint = Endpoint(close_others=False)

    answer = endpoint.post(review(pod()), way="close")

    assert (answer.status_code, answer.mimetype) == (404, "text/plain")
    assert "--close-others" in answer.text


def without(path: str) -> dict[str, Any]:
    """Return a review that lacks one member."""
    whole = review(pod())
    *parents, last = path.split(".")
    inner = whole
    for name in parents:
        inner = inner[name]
    del inner[last]
    return whole


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"AdmissionReview"',
        b"{}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"[" * 100_000,
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": []}',
        *(
            json.dumps(without(path)).encode()
            for path in (
                "kind",
                "apiVersion",
                "request",
                "request.uid",
                "request.kind",
                "request.kind.kind",
                "request.operation",
            )
        ),
        json.dumps(review(pod(), uid="")).encode(),
        json.dumps(review(pod(), uid=None)).encode(),
        json.dumps(review(pod(), uid=7)).encode(),
        json.dumps(review(pod(), uid="u" * 129)).encode(),
        json.dumps(review([])).encode(),
        json.dumps(review("pod")).encode(),
        json.dumps({**review(pod()), "apiVersion": "admission.k8s.io/v1beta1"}).encode(),
        json.dumps({**review(pod()), "kind": "ConversionReview"}).encode(),
    ],
)
def test_what_is_no_review_is_a_bad_request_in_plain_words(endpoint: Endpoint, body: bytes) -> None:
    answer = endpoint.post(body)

    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert answer.text.strip()
    assert "Traceback" not in answer.text
    assert endpoint.counted("bad_request") == 1


def test_only_plain_json_is_read(endpoint: Endpoint) -> None:
    body = json.dumps(review(pod())).encode()
    answers = [
        endpoint.post(body, Content_Type="application/yaml"),
        endpoint.post(body, Content_Type=""),
        endpoint.post(gzip.compress(body), Content_Encoding="gzip"),
    ]

    assert [answer.status_code for answer in answers] == [415, 415, 415]
    assert endpoint.post(body, Content_Type="application/json; charset=utf-8").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/mutate", 405), ("PUT", "/mutate", 405), ("POST", "/", 404), ("GET", "/static", 404)],
)
def test_other_methods_and_paths_are_refused_in_plain_words(
    endpoint: Endpoint, method: str, path: str, status: int
) -> None:
    answer = endpoint.client.open(path, method=method)

    assert (answer.status_code, answer.mimetype) == (status, "text/plain")
    assert "<" not in answer.text


def test_while_not_ready_nothing_is_decided(endpoint: Endpoint) -> None:
    endpoint.reason = "RuntimeClasses are not listed yet"
    answer = endpoint.post(review(pod()))

    assert (answer.status_code, answer.text) == (
        503,
        "not ready: RuntimeClasses are not listed yet\n",
    )
    assert endpoint.counted("not_ready") == 1
