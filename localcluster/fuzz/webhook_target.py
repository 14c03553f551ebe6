"""The webhook's application as it is put together in its process, and what it must answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from random import Random
from typing import Any

import jsonpatch
import msgspec
from prometheus_client import CollectorRegistry

from gpus.annotations import DEVICES_CONFIG_MAP_PREFIX
from localcluster.fuzz import seeds
from localcluster.fuzz.asking import JSON, MAX_BODY, Got, Sent, call, check, understood
from localcluster.fuzz.mutations import mutate
from service.http import limit_body
from webhook import __main__ as webhook_main
from webhook.app import create_app
from webhook.metrics import Metrics
from webhook.mutate import Mutator
from webhook.settings import Settings

_USUAL = 0.98
"""Share of reviews that are sent as JSON."""
_TYPES = ("text/plain", "", "application/json; charset=utf-16", "application/yaml", "a/b;c=")
_CLASSES = {"nvidia": "nvidia", "nvidia-cdi": "nvidia-cdi", "gvisor": "runsc"}


class WebhookTarget:
    """The webhook with the settings that it has by default, and every path open."""

    def __init__(self) -> None:
        context = webhook_main.main.make_context("webhook", ["--close-others"])
        mutator = Mutator(
            policy=Settings(**context.params).policy(),
            new_name=lambda: f"{DEVICES_CONFIG_MAP_PREFIX}{'f' * 20}",
            runtime_classes=lambda: _CLASSES,
        )
        app = create_app(mutator, metrics=Metrics(CollectorRegistry()), not_ready=lambda: None)
        self._app = limit_body(app, MAX_BODY)
        self._seeds = seeds.reviews()

    def request(self, rng: Random) -> Sent:
        """Return a review for one of the two paths."""
        content_type = JSON if rng.random() < _USUAL else rng.choice(_TYPES)
        path = "/mutate" if rng.random() < 0.7 else "/close"
        return Sent(path=path, body=mutate(rng, self._seeds), content_type=content_type)

    def answered(self, sent: Sent) -> str:
        """Send a review, and what was made of it once more: then nothing may change again."""
        got = call(self._app, sent)
        if got.status != 200:
            return _refused(got)
        response, pod = self._reviewed(sent, got)
        if not response["allowed"]:
            check(bool(response["status"]["message"]), "a refusal without a reason")
            return "refused"
        if "patch" not in response:
            return "unchanged"
        review = understood(sent.body)
        review["request"]["object"] = pod
        again = Sent(path=sent.path, body=json.dumps(review).encode())
        second, _ = self._reviewed(again, call(self._app, again))
        check(second["allowed"] and "patch" not in second, "a second review changes it again")
        return "mutated"

    def close(self) -> None:
        """There is nothing to give back."""

    def _reviewed(self, sent: Sent, got: Got) -> tuple[Mapping[str, Any], Any]:
        """Check the form of an answer; return it and the object with its patch applied."""
        check(got.content_type == JSON, f"{got.status} of type {got.content_type}")
        answer, asked = msgspec.json.decode(got.body), understood(sent.body)["request"]
        response: Mapping[str, Any] = answer["response"]
        check(answer["kind"] == "AdmissionReview", "not a review")
        check(response["uid"] == asked["uid"], "another uid")
        if "patch" not in response:
            return response, asked.get("object")
        operations = msgspec.json.decode(base64.b64decode(response["patch"], validate=True))
        check(response["patchType"] == "JSONPatch" and operations != [], "an odd patch")
        return response, jsonpatch.apply_patch(asked["object"], operations, in_place=True)


def _refused(got: Got) -> str:
    check(400 <= got.status < 500, f"{got.status}: {got.body[:500].decode()}")
    check(b"Traceback" not in got.body, "a traceback is shown")
    return str(got.status)
