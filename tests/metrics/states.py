"""Brings a site into each state that an alert is for, and takes two scrapes of it there."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from localcluster.api import ApiError
from localcluster.monitoring.site import API_SERVER, MonitoredSite
from localcluster.stack import NAMESPACE as SYSTEM
from localcluster.waiting import until
from tests.cluster.pods import Object, bound, gpu_pod, refused, serves_gpus
from tests.metrics.scrapes import Scrape, State

GOOD = "good"
#: Nodes of the site with their GPUs; what befalls GPUs befalls the second.
NODES = {"good-node": "2x-rtx-4090", "bad-node": "2x-rtx-4090"}
NAMESPACE = "metrics"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
_BINDINGS = f"{_POLICIES.removesuffix('policies')}policybindings"
_CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpudetour"
_REFUSED = frozenset({"gpudetour_extender_bind_refused_total"})
_PATIENCE = 90.0


class States:
    """Visits the states one after the other; each is undone before the next."""

    def __init__(self, site: MonitoredSite) -> None:
        self._site = site
        self._api = site.stack.cluster.api
        self.seen: dict[str, State] = {}

    def visit(self) -> dict[str, State]:
        """Visit all; the first is the one in which nothing is wrong."""
        self._api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
        self._site.stack.cluster.wait_for(account, bool)
        self._create(gpu_pod("runs"))
        self._until_pod("runs", bound)
        self._until("webhook", 'canary_last_result{result="admitted"} 1.0', "the canary admitted")
        self._until("extender", "extender_waiting_pods 0.0", "no pod that waits")
        self._record(GOOD)
        for alert, state in (
            ("GPUDetourGPUUnhealthy", self._lost_gpus),
            ("GPUDetourHolderUnknown", self._foreign_pod),
            ("GPUDetourBindsRefused", self._refused_bindings),
            ("GPUDetourAdmissionBroken", self._no_configuration),
            ("GPUDetourWebhookNotReached", self._no_webhook),
            ("GPUDetourPodsWaitLong", self._waiting_pod),
            ("GPUDetourAgentSilent", self._no_agent),
            ("GPUDetourLedgerStale", self._silent_api_server),
            ("GPUDetourCertificateNearEnd", self._short_certificates),
            ("GPUDetourNoLeader", self._no_extender),
        ):
            with contextmanager(state)():
                self._record(alert)
        # The GPUs of a node that are all lost are two states at once.
        self.seen["GPUDetourNodeNotServing"] = self.seen["GPUDetourGPUUnhealthy"]
        return self.seen

    def _record(self, name: str) -> None:
        """Take two scrapes, the second when every agent that lives has looked again.

        Where it is refusals that are told, another one lies between the two.
        """
        silent = name == "GPUDetourLedgerStale"
        counted = _REFUSED if name == "GPUDetourBindsRefused" else frozenset()
        skip = {API_SERVER} if silent else set()
        first = self._scrape(skip)

        def later() -> Scrape | None:
            second = self._scrape(skip)
            grown = not counted or _sum(second, counted) > _sum(first, counted)
            return second if grown and second.at - first.at > 2 else None

        second = until(later, timeout=_PATIENCE, what="a second scrape", interval=0.5)
        growing = frozenset({"gpudetour_extender_ledger_age_seconds"} if silent else ())
        self.seen[name] = State(first=first, second=second, growing=growing)

    def _scrape(self, skip: set[str]) -> Scrape:
        at = time.time()
        names = [name for name in self._site.targets if name not in skip]
        return Scrape(
            at=at,
            texts={name: self._site.scrape(name) for name in names},
            labels={name: self._site.targets[name].labels for name in names},
        )

    def _lost_gpus(self) -> Iterator[None]:
        machine = self._site.machines["bad-node"]
        machine.xid(machine.uuids[0], 31)
        self._until("agent-bad-node", 'xid="31"} 1.0', "an Xid counted")
        for uuid in machine.uuids:
            machine.lose(uuid)
        self._until("agent-bad-node", 'node_gpus{health="lost"} 2.0', "both GPUs lost")
        self._until("agent-bad-node", 'gpus_served{cause="Annotations"} 0.0', "nothing served")
        yield
        for uuid in machine.uuids:
            machine.restore(uuid)
        self._until("agent-bad-node", 'node_gpus{health="healthy"} 2.0', "both GPUs back")

    def _foreign_pod(self) -> Iterator[None]:
        foreign = gpu_pod("foreign")
        foreign["spec"]["schedulerName"] = "somebody-else"
        self._create(foreign)
        target = {"kind": "Node", "name": "bad-node"}
        self._api.create(
            f"{PODS}/foreign/binding", {"metadata": {"name": "foreign"}, "target": target}
        )
        self._until("extender", "unclear_pods 1.0", "the foreign pod")
        yield
        self._delete("foreign")
        self._until("extender", "unclear_pods 0.0", "the foreign pod gone")

    def _refused_bindings(self) -> Iterator[None]:
        self._api.create(_POLICIES, _no_bindings())
        body = {"policyName": "no-bindings", "validationActions": ["Deny"]}
        self._api.create(_BINDINGS, {"metadata": {"name": "no-bindings"}, "spec": body})
        probe = gpu_pod("probe")
        probe["spec"]["schedulerName"] = "somebody-else"
        self._create(probe)
        until(self._denied, timeout=_PATIENCE, what="the policy in force")
        self._create(gpu_pod("unbound"))
        self._until("extender", 'bind_refused_total{reason="api"} 0.0', "a refusal", absent=True)
        yield
        self._delete("probe")
        self._api.delete(f"{_BINDINGS}/no-bindings")
        self._api.delete(f"{_POLICIES}/no-bindings")
        self._delete("unbound")

    def _denied(self) -> bool:
        body = {"metadata": {"name": "probe"}, "target": {"kind": "Node", "name": "good-node"}}
        try:
            self._api.create(f"{PODS}/probe/binding?dryRun=All", body)
        except ApiError as error:
            return "no bindings in this test" in str(error)
        return False

    def _no_configuration(self) -> Iterator[None]:
        stored = self._api.get(_CONFIGURATION)
        self._api.delete(_CONFIGURATION)
        self._until("webhook", 'canary_last_result{result="not_called"} 1.0', "the canary's no")
        yield
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
            stored["metadata"].pop(field, None)
        self._api.create(_CONFIGURATION.rpartition("/")[0], stored)
        self._until("webhook", 'canary_last_result{result="admitted"} 1.0', "the canary's yes")

    def _no_webhook(self) -> Iterator[None]:
        self._site.stack.stop("webhook")
        tries = iter(range(1000))

        def fails_open() -> bool:
            self._refused_create(f"refused-{next(tries)}")
            return "webhook_fail_open_count{" in (self._site.scrape(API_SERVER) or "")

        until(fails_open, timeout=_PATIENCE, what="kube-apiserver counting")
        before = self._scrape(set())
        self._refused_create(f"refused-{next(tries)}")
        yield
        # Counters that appear have not grown; this one was there before the second pod.
        seen = self.seen["GPUDetourWebhookNotReached"]
        self.seen["GPUDetourWebhookNotReached"] = State(first=before, second=seen.second)
        self._site.stack.start_webhook()
        self._until("webhook", "gpudetour_webhook_requests_total", "the webhook back")

    def _waiting_pod(self) -> Iterator[None]:
        self._create(gpu_pod("waits", gpus=64))
        self._until_pod("waits", lambda pod: refused(pod) != "")
        yield
        self._delete("waits")

    def _no_agent(self) -> Iterator[None]:
        self._site.stack.stop("agent-bad-node")
        yield
        self._site.start_agent("bad-node")
        self._site.stack.cluster.wait_for("/api/v1/nodes/bad-node", serves_gpus, timeout=_PATIENCE)

    def _silent_api_server(self) -> Iterator[None]:
        processes = self._site.stack.cluster.processes
        processes.signal("kube-apiserver", signal.SIGSTOP)
        try:
            yield
        finally:
            processes.signal("kube-apiserver", signal.SIGCONT)
        self._until("extender", "extender_leading 1.0", "the extender leading again")

    def _short_certificates(self) -> Iterator[None]:
        self._api.delete(f"/api/v1/namespaces/{SYSTEM}/secrets/gpudetour-webhook-tls")
        self._until("certs", "certificates_issued_total{", "a certificate made anew")

        def near_end() -> bool:
            # `certs run` may make one of its own in between.
            self._site.stack.issue_certificates("--force", "--server-lifetime=3d")
            return _ends_within(self._site.scrape("webhook") or "", days=4)

        def renewed() -> bool:
            self._site.stack.issue_certificates("--force")
            told = [self._site.scrape(name) or "" for name in ("webhook", "extender", "certs")]
            return all(told) and not any(_ends_within(text, days=4) for text in told)

        until(near_end, timeout=_PATIENCE, what="a certificate of three days", interval=1)
        yield
        until(renewed, timeout=_PATIENCE, what="certificates of thirty days", interval=1)

    def _no_extender(self) -> Iterator[None]:
        self._site.stack.stop("extender")
        yield
        self._site.stack.start_extender()

    def _create(self, pod: Object) -> None:
        self._api.create(PODS, pod)

    def _refused_create(self, name: str) -> None:
        self._site.stack.cluster.kubectl(
            *("run", name, "-n", NAMESPACE, "--image=gpudetour.local/cuda:1", "--dry-run=server"),
            '--overrides={"spec":{"containers":[{"name":"c","image":"gpudetour.local/cuda:1",'
            '"resources":{"limits":{"nvidia.com/gpu":1}}}]}}',
            check=False,
        )

    def _delete(self, name: str) -> None:
        self._site.stack.cluster.kubectl(
            *("delete", "pod", name, "-n", NAMESPACE, "--force", "--grace-period=0")
        )

    def _until_pod(self, name: str, when: Callable[[Object], bool]) -> None:
        self._site.stack.cluster.wait_for(f"{PODS}/{name}", when, timeout=_PATIENCE)

    def _until(self, target: str, line: str, what: str, *, absent: bool = False) -> None:
        def told() -> bool:
            text = self._site.scrape(target)
            return text is not None and (line in text) is not absent

        until(told, timeout=_PATIENCE, what=what or f"{target} without {line}")


def _sum(scrape: Scrape, names: frozenset[str]) -> float:
    return sum(scrape.series(names).values())


def _ends_within(text: str, *, days: float) -> bool:
    name = "gpudetour_certificate_not_after_seconds"
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return any(float(line.rpartition(" ")[2]) - time.time() < days * 86400 for line in lines)


def _no_bindings() -> Object:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods/binding"],
    }
    return {
        "metadata": {"name": "no-bindings"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "no bindings in this test"}],
        },
    }
