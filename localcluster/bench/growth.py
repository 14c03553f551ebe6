"""What a filter costs by the length of the list of names: asked one by one, as the scheduler asks.

The real processes answer over HTTPS, the extender with a ledger of all nodes of its cluster and the
stub with none. They take turns. Of two pods one fits on a tenth of the nodes, and one nowhere: then
there is a reason to tell for each name. Nothing is created; the scheduler does not run.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles
from typing import Any

import msgspec

from gpus.annotations import PRODUCT
from localcluster.bench import readings
from localcluster.bench.exposition import Series, grown
from localcluster.bench.fleet import PODS, node_names, pod
from localcluster.bench.outcome import Asked, Growth
from localcluster.bench.site import Site, Tell
from localcluster.bench.wire import Wire, client_context, dial

LENGTHS = (10, 100, 500, 1000, 2500, 5000)
"""Lists of names that are sent, as far as there are so many nodes."""

_NOT_ASKED_FOR = ("", "leases", "csistoragecapacities", "configmaps")
_TURNS = 15
_IN_A_TURN = 20
_OK = 200
_STRIDE = 617


class FilterRefused(Exception):
    """An extender answered with an error, or not as it must."""


def measure_growth(ours: Site, stub: Site | None, *, tell: Tell) -> Growth:
    """Ask for filters and prioritize; raises `FilterRefused`."""
    lengths = [count for count in LENGTHS if count < ours.nodes] + [ours.nodes]
    found: defaultdict[_Asker, dict[int, Asked]] = defaultdict(dict)
    with ExitStack() as opened:
        fitting = opened.enter_context(_asking(ours))
        nowhere = opened.enter_context(_asking(ours, product="of another kind"))
        askers = [fitting, nowhere]
        idle = opened.enter_context(_asking(stub)) if stub is not None else None
        if idle is not None:
            askers.append(idle)
        before = readings.requests(ours.cluster)
        for count in lengths:
            tell(f"filters with {count} names")
            names = node_names(ours.nodes)[:count]  # one in ten has free GPUs
            for asker, seconds in _taking_turns(askers, names).items():
                found[asker][count] = asked(seconds)
            fitting.prioritize(names)
        after = readings.requests(ours.cluster)
    return Growth(
        system=ours.system,
        nodes=ours.nodes,
        pods=len(ours.cluster.api.get(PODS)["items"]),
        ours=found[fitting],
        nowhere=found[nowhere],
        stub=found[idle] if idle is not None else {},
        requests=fitting.count + nowhere.count,
        api_calls=api_calls(before, after),
    )


def api_calls(before: Series, after: Series) -> dict[str, float]:
    """What an API server was asked between two moments, by verb and resource.

    Whatever it is asked, the extender renews its Lease and counts usage in a ConfigMap, and when it
    begins to lead it rings (`extender.waking.bell`); watches end by themselves.
    """
    found: Counter[str] = Counter()
    for labels, count in grown(before, after).items():
        named = dict(labels)
        if named["resource"] not in _NOT_ASKED_FOR and named["verb"] != "WATCH":
            found[f"{named['verb']} {named['resource']}"] += int(count)
    return dict(found)


def asked(seconds: Sequence[float]) -> Asked:
    """The quantiles of at least two round trips."""
    return Asked(p50=median(seconds), p99=quantiles(seconds, n=100, method="inclusive")[98])


class _Asker:
    """Asks the extender of one site about one pod that nobody has created."""

    def __init__(self, wire: Wire, asked_for: dict[str, Any], *, fits: bool) -> None:
        self.count = 0
        self._wire = wire
        self._pod = asked_for
        self._fits = fits

    def filter(self, names: Sequence[str], *, times: int) -> list[float]:
        """Round trips, in seconds.

        The names begin at another place each time: kube-scheduler's come in no order either, for it
        looks at several nodes at once.
        """
        return [self._filter(names) for _ in range(times)]

    def _filter(self, names: Sequence[str]) -> float:
        first = self.count * _STRIDE % len(names)
        body = self._body([*names[first:], *names[:first]])
        begun = time.perf_counter()
        answer = self._ask("POST /filter", body)
        took = time.perf_counter() - begun
        said = msgspec.json.decode(answer)
        if said.get("Error") or bool(said.get("NodeNames")) is not self._fits:
            raise FilterRefused(f"not as expected: {answer[:300].decode()}")
        return took

    def prioritize(self, names: Sequence[str]) -> None:
        """Ask once; how long it takes is not told, for the scheduler does so for few names."""
        self._ask("POST /prioritize", self._body(names))

    def _ask(self, start: str, body: bytes) -> bytes:
        status, answer = self._wire.ask(start, body)
        self.count += 1
        if status != _OK:
            raise FilterRefused(f"{start} was answered with {status}")
        return answer

    def _body(self, names: Sequence[str]) -> bytes:
        return msgspec.json.encode({"Pod": self._pod, "Nodes": None, "NodeNames": names})


@contextmanager
def _asking(site: Site, *, product: str | None = None) -> Iterator[_Asker]:
    (extender,) = site.placement.configuration(site.system)["extenders"]
    tls = extender["tlsConfig"]
    context = client_context(
        ca_file=tls["caFile"], cert_file=tls["certFile"], key_file=tls["keyFile"]
    )
    wished = pod("asked-for", batch="growth")
    if product is not None:
        wished["metadata"]["annotations"] = {PRODUCT: product}
    # As the webhook would leave it. The scheduler drops managedFields when it reads pods.
    admitted = site.cluster.api.create(f"{PODS}?dryRun=All", wished)
    del admitted["metadata"]["managedFields"]
    wire = dial(extender["urlPrefix"], context, name=tls["serverName"])
    try:
        yield _Asker(wire, admitted, fits=product is None)
    finally:
        wire.close()


def _taking_turns(askers: Sequence[_Asker], names: Sequence[str]) -> dict[_Asker, list[float]]:
    for asker in askers:
        asker.filter(names, times=_IN_A_TURN)  # what comes first is warmed up for
    seconds: dict[_Asker, list[float]] = {asker: [] for asker in askers}
    for _ in range(_TURNS):
        for asker in askers:
            seconds[asker] += asker.filter(names, times=_IN_A_TURN)
    return seconds
