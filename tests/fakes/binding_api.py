"""The part of the API server that binds pods: Pods, Bindings, ConfigMaps, and the fencing policy.

Kept as close to BindingREST and the shipped policies as the tests of the binder need; what a real
kube-apiserver does is tested on a real one.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gpus.annotations import ASSIGNED, EPOCH, assigned_prefix
from kube.client import Client
from tests.builders import PodBuilder
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, Stream, refusal

Object = dict[str, Any]
#: What happens to a call: its ordinary answer is made by calling the second argument, or not.
Trouble = Callable[[Request, Callable[[], Reply]], Reply]


class BindingApi(FakeApiServer):
    """Stores what it is told, and misbehaves as `trouble` says."""

    def __init__(self, *pods: PodBuilder) -> None:
        super().__init__(self._reply_to)
        self._lock = threading.Lock()
        self._uids = itertools.count(1)
        self.pods: dict[str, Object] = {}
        self.config_maps: dict[str, Object] = {}
        #: What the policy compares with; None: no policy.
        self.epoch: int | None = 1
        #: Whether it compares with what is written to the ServiceAccount.
        self.follows = True
        self.account: Object = {"metadata": {"resourceVersion": "1", "annotations": {}}}
        self.trouble: Trouble = lambda _request, proceed: proceed()
        for pod in pods:
            self.put(pod)

    def put(self, pod: PodBuilder) -> None:
        """Store a pod in place of the one of that name."""
        self.pods[f"default/{pod.name}"] = pod.raw()

    def client(self) -> Client:
        """Return a client of this server that is not patient."""
        return Client(self.connection(), timeout=5.0)

    def calls(self) -> list[str]:
        """Return the calls so far as `METHOD last/parts`."""
        return [
            f"{request.method} {'/'.join(request.path.split('/')[5:])}" for request in self.requests
        ]

    def _reply_to(self, request: Request) -> Reply:
        return self.trouble(request, lambda: self._locked(request))

    def _locked(self, request: Request) -> Reply:
        with self._lock:
            return self._ordinary(request)

    def _ordinary(self, request: Request) -> Reply:
        lists = {"/api/v1/pods": self.pods, "/api/v1/configmaps": self.config_maps}
        if request.path in lists:
            return _list(lists[request.path], request)
        _, _, _, _, namespace, kind, *rest = request.path.split("/")
        match request.method, kind, rest:
            case "GET", "pods", [name]:
                return _found(self.pods.get(f"{namespace}/{name}"))
            case "POST", "pods", [name, "binding"]:
                return self._bind(f"{namespace}/{name}", request)
            case _, "serviceaccounts", [_]:
                return self._read_or_annotate(request)
            case "GET", "configmaps", [name]:
                return _found(self.config_maps.get(f"{namespace}/{name}"))
            case "POST", "configmaps", []:
                return self._create(namespace, request.body)
            case "DELETE", "configmaps", [name]:
                return self._delete(f"{namespace}/{name}", request.body)
        return refusal(405, "MethodNotAllowed")

    def _bind(self, key: str, request: Request) -> Reply:
        body = request.body
        if self._fenced(body):
            return refusal(403, "Forbidden")
        pod = self.pods.get(key)
        if pod is None:
            return refusal(404, "NotFound")
        if body["metadata"].get("uid", pod["metadata"]["uid"]) != pod["metadata"]["uid"]:
            return refusal(409, "Conflict")
        if "deletionTimestamp" in pod["metadata"] or pod["spec"].get("nodeName"):
            return refusal(409, "Conflict")
        if "dryRun" not in request.params:
            pod["spec"]["nodeName"] = body["target"]["name"]
            pod["metadata"]["annotations"] |= body["metadata"]["annotations"]
        return Answer(status=201, body={"kind": "Status", "status": "Success"})

    def _read_or_annotate(self, request: Request) -> Reply:
        if request.method == "GET":
            return _found(self.account)
        metadata, stored = request.body["metadata"], self.account["metadata"]
        if metadata["resourceVersion"] != stored["resourceVersion"]:
            return refusal(409, "Conflict")
        stored["annotations"] |= metadata["annotations"]
        stored["resourceVersion"] = str(int(stored["resourceVersion"]) + 1)
        if self.follows and EPOCH in stored["annotations"]:
            self.epoch = int(stored["annotations"][EPOCH])
        return _found(self.account)

    def _create(self, namespace: str, body: Object) -> Reply:
        key = f"{namespace}/{body['metadata']['name']}"
        if self._fenced(body):
            return refusal(403, "Forbidden")
        if key in self.config_maps:
            return refusal(409, "AlreadyExists")
        stored = copy.deepcopy(body)
        stored["metadata"]["uid"] = f"config-map-{next(self._uids)}"
        self.config_maps[key] = stored
        return Answer(status=201, body=stored)

    def _delete(self, key: str, body: Object | None) -> Reply:
        found = self.config_maps.get(key)
        if found is None:
            return refusal(404, "NotFound")
        wanted = ((body or {}).get("preconditions") or {}).get("uid")
        if wanted not in (None, found["metadata"]["uid"]):
            return refusal(409, "Conflict")
        del self.config_maps[key]
        return Answer(body={"kind": "Status", "status": "Success"})

    def _fenced(self, body: Object) -> bool:
        if self.epoch is None:
            return False
        text = (body["metadata"].get("annotations") or {}).get(ASSIGNED, "")
        return not text.startswith(assigned_prefix(self.epoch))


def _list(stored: Mapping[str, Object], request: Request) -> Reply:
    if request.is_watch:
        return Stream([Fault.HANG])
    items = copy.deepcopy(list(stored.values()))
    return Answer(body={"metadata": {"resourceVersion": "1"}, "items": items})


def _found(stored: Object | None) -> Reply:
    return refusal(404, "NotFound") if stored is None else Answer(body=copy.deepcopy(stored))


def on(call: str, reply: Trouble, *, times: int = 1) -> Trouble:
    """Return trouble with the first `times` calls whose `METHOD /path` ends so; others are well."""
    left = [times]

    def trouble(request: Request, proceed: Callable[[], Reply]) -> Reply:
        method, _, end = call.partition(" ")
        if request.method == method and request.path.endswith(end) and left[0] > 0:
            left[0] -= 1
            return reply(request, proceed)
        return proceed()

    return trouble


def lost_on_the_way(_request: Request, _proceed: Callable[[], Reply]) -> Reply:
    """The call never takes effect, and no answer comes."""
    return Fault.CUT


def answer_lost(_request: Request, proceed: Callable[[], Reply]) -> Reply:
    """The call takes effect, and no answer comes."""
    proceed()
    return Fault.CUT


def refused(status: int) -> Trouble:
    """The call is refused."""
    return lambda _request, _proceed: refusal(status)
