"""Brings the cluster to what the plan says, one pass at a time; any number of processes may."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from certs import files
from certs.issue import Issued, carry_out
from certs.names import Leaf
from certs.plan import make_plan
from certs.rules import Rules
from certs.state import Why
from certs.store import CaBundle, Store
from kube.errors import Conflict

#: Passes of one run: one that writes everything, one that sees it, and as many as others interrupt.
_PASSES = 8


class Wish(Protocol):
    """What is wanted, the same for one run and for a process that goes on."""

    @property
    def write_to(self) -> str | None: ...
    def leaves(self) -> tuple[Leaf, ...]: ...
    def rules(self) -> Rules: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass left behind; `changed` tells whether it wrote anything to the cluster."""

    issued: Issued
    bundle: CaBundle
    changed: bool


def converge(store: Store, wish: Wish, *, now: datetime, force: bool = False) -> Pass:
    """Make one pass; raises `Conflict` where another process was faster, `KubeError`, OSError."""
    leaves, rules = wish.leaves(), wish.rules()
    seen = store.observe(leaves)
    plan = make_plan(seen.state, leaves, now=now, rules=rules, force=force)
    issued = carry_out(plan, leaves, now=now, rules=rules)
    authority, *others = issued.outcomes
    written = [store.write(authority.secret, authority.data, seen=seen)]
    # Trusted before anything that it issued is served.
    bundle = store.trust(issued.bundle, seen=seen)
    written += [store.write(outcome.secret, outcome.data, seen=seen) for outcome in others]
    if wish.write_to is not None:
        # The authority's key stays in the cluster.
        for outcome in others:
            files.write(Path(wish.write_to) / outcome.name, outcome.data)
    return Pass(issued=issued, bundle=bundle, changed=any(written) or bundle is CaBundle.FILLED)


def settle(store: Store, wish: Wish, *, now: Callable[[], datetime], force: bool) -> Pass:
    """Make passes until nothing is left that can be done now, and return what they did together."""
    passes: list[Pass] = []
    for _ in range(_PASSES):
        try:
            passes.append(converge(store, wish, now=now(), force=force and not passes))
        except Conflict:
            continue
        if not passes[-1].changed:
            break
    if not passes:
        raise Conflict(409, reason="Conflict", message="others write the same objects all the time")
    return _together(passes)


def _together(passes: list[Pass]) -> Pass:
    last = passes[-1]
    outcomes = [
        replace(outcome, why=_said(each.issued.outcomes[index].why for each in passes))
        for index, outcome in enumerate(last.issued.outcomes)
    ]
    filled = any(each.bundle is CaBundle.FILLED for each in passes)
    return Pass(
        issued=Issued(outcomes=tuple(outcomes)),
        bundle=CaBundle.FILLED if filled else last.bundle,
        changed=any(each.changed for each in passes),
    )


def _said(reasons: Iterable[Why]) -> Why:
    """Return why something was issued, or else what the last pass said."""
    *_, last = found = list(reasons)
    return next((why for why in found if why not in (Why.KEPT, Why.WAITING)), last)
