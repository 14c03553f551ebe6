"""The path of a node, case by case, and the transitions between paths."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.model import Path
from nodeagent.path import HANDOVER, Cause, Decision, Observation, OwnPlugin, decide, with_handover

#: A node whose plugin of somebody else died long ago, and which was never on the annotation path.
NODE = Observation(devices=2)
SERVING = replace(NODE, own=OwnPlugin.SERVING, capacity=2, remembered=True, published=Path.PLUGIN)
ASKED = replace(NODE, annotation_asked=True)


class Case(NamedTuple):
    name: str
    observation: Observation
    path: Path
    cause: Cause
    register: bool = False
    remove: bool = False


CASES = [
    # A plugin of somebody else serves.
    Case(
        "another plugin serves",
        replace(NODE, foreign=True, capacity=2, remembered=True),
        Path.PLUGIN, Cause.OTHER_PLUGIN,
    ),
    Case(
        "another plugin serves, and our NVML finds nothing",
        replace(NODE, foreign=True, devices=0, capacity=2),
        Path.PLUGIN, Cause.OTHER_PLUGIN,
    ),
    Case(
        "another plugin serves although the admin asks for annotations",
        replace(ASKED, foreign=True, capacity=2),
        Path.PLUGIN, Cause.OTHER_PLUGIN,
    ),
    Case(
        "another plugin came while ours served",
        replace(SERVING, foreign=True),
        Path.PLUGIN, Cause.OTHER_PLUGIN,
    ),
    Case(
        "another plugin is back while annotation pods run",
        replace(NODE, foreign=True, annotation_pods=1),
        Path.DRAINING, Cause.DRAINING,
    ),
    # Dynamic resource allocation.
    Case(
        "DRA serves, and nobody needs us",
        replace(NODE, dra="slices"),
        Path.SETTLING, Cause.DRA,
    ),
    Case(
        "DRA serves beside another plugin, which is not ours to stop",
        replace(NODE, dra="slices", foreign=True, capacity=2),
        Path.PLUGIN, Cause.OTHER_PLUGIN,
    ),
    Case(
        "DRA came while pods of the annotation path run",
        replace(NODE, dra="slices", annotation_pods=1, published=Path.ANNOTATION),
        Path.DRAINING, Cause.DRAINING,
    ),
    Case(
        "DRA came while pods hold devices of our plugin, which they need",
        replace(SERVING, dra="slices", holders=1, plugin_pods=1),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    Case(
        "DRA came while ours serves nobody: placements may be under way",
        replace(SERVING, dra="slices"),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    Case(
        "DRA came, and ours leaves",
        replace(SERVING, dra="slices", published=Path.DRAINING, since_plugin=HANDOVER),
        Path.SETTLING, Cause.SETTLING,
    ),
    Case(
        "DRA serves, kubelet remembers ours",
        replace(NODE, dra="slices", capacity=0, remembered=True, published=Path.SETTLING),
        Path.SETTLING, Cause.DRA,
    ),
    Case(
        "DRA serves, and a zero would make kubelet refuse its pods",
        replace(NODE, dra="slices", capacity=0, published=Path.SETTLING),
        Path.SETTLING, Cause.DRA, remove=True,
    ),
    Case("DRA somewhere, no GPU here", Observation(devices=0, dra="class"), Path.SETTLING,
         Cause.NO_GPU),
    # No GPU.
    Case("no GPU", Observation(devices=0), Path.SETTLING, Cause.NO_GPU),
    Case(
        "no GPU any more while we serve: kubelet is told so",
        replace(SERVING, devices=0),
        Path.SETTLING, Cause.NO_GPU, register=True,
    ),
    Case(
        "no GPU, and a zero in node status, which is true",
        Observation(devices=0, capacity=0),
        Path.SETTLING, Cause.NO_GPU,
    ),
    # Our plugin.
    Case("nobody serves", NODE, Path.SETTLING, Cause.REGISTERING, register=True),
    Case(
        "another plugin died, its pods still run",
        replace(NODE, capacity=2, remembered=True, holders=1, published=Path.PLUGIN),
        Path.SETTLING, Cause.REGISTERING, register=True,
    ),
    Case(
        "a stale zero is no obstacle to our plugin",
        replace(NODE, capacity=0, published=Path.SETTLING),
        Path.SETTLING, Cause.REGISTERING, register=True,
    ),
    Case("ours serves", SERVING, Path.PLUGIN, Cause.OWN_PLUGIN, register=True),
    Case(
        "ours serves pods",
        replace(SERVING, holders=2, plugin_pods=2),
        Path.PLUGIN, Cause.OWN_PLUGIN, register=True,
    ),
    Case(
        "ours is being taken",
        replace(NODE, own=OwnPlugin.STARTING),
        Path.SETTLING, Cause.REGISTERING, register=True,
    ),
    Case(
        "kubelet restarts, and ours registers again",
        replace(SERVING, own=OwnPlugin.STARTING, holders=1),
        Path.SETTLING, Cause.REGISTERING, register=True,
    ),
    # Annotation pods and our plugin.
    Case(
        "never beside annotation pods",
        replace(NODE, annotation_pods=1, published=Path.ANNOTATION, since_annotation=0),
        Path.DRAINING, Cause.DRAINING,
    ),
    Case(
        "annotation pods were placed while ours registered: ours leaves",
        replace(SERVING, annotation_pods=1),
        Path.DRAINING, Cause.DRAINING,
    ),
    Case(
        "annotation pods beside pods that need our plugin: it stays for them",
        replace(SERVING, annotation_pods=1, holders=1),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    Case(
        "the annotation path was in force a moment ago: a Binding may be under way",
        replace(NODE, published=Path.ANNOTATION, since_annotation=0),
        Path.DRAINING, Cause.DRAINING,
    ),
    Case(
        "no more Binding can be under way",
        replace(NODE, published=Path.DRAINING, since_annotation=HANDOVER),
        Path.SETTLING, Cause.REGISTERING, register=True,
    ),
    # The annotation path, from nothing.
    Case("asked for", ASKED, Path.ANNOTATION, Cause.ANNOTATIONS),
    Case(
        "no plugin allowed",
        replace(NODE, plugin_allowed=False),
        Path.ANNOTATION, Cause.ANNOTATIONS,
    ),
    Case("no kubelet socket", replace(NODE, kubelet=False), Path.ANNOTATION, Cause.ANNOTATIONS),
    Case(
        "kubelet refuses our plugin",
        replace(NODE, own=OwnPlugin.REFUSED, own_error="no"),
        Path.ANNOTATION, Cause.ANNOTATIONS,
    ),
    Case(
        "annotation pods run on it",
        replace(ASKED, annotation_pods=2, published=Path.ANNOTATION, since_annotation=0),
        Path.ANNOTATION, Cause.ANNOTATIONS,
    ),
    # The annotation path, from our plugin.
    Case(
        "asked for while pods hold devices of ours",
        replace(SERVING, annotation_asked=True, holders=1, since_plugin=0),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    Case(
        "asked for while a pod is on its way to kubelet",
        replace(SERVING, annotation_asked=True, plugin_pods=1, published=Path.DRAINING),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    Case(
        "asked for on an empty node: first nothing more is placed",
        replace(SERVING, annotation_asked=True, since_plugin=0),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    Case(
        "then our plugin leaves",
        replace(SERVING, annotation_asked=True, published=Path.DRAINING, since_plugin=HANDOVER),
        Path.SETTLING, Cause.SETTLING,
    ),
    Case(
        "then kubelet forgets it",
        replace(ASKED, capacity=2, remembered=True, published=Path.SETTLING),
        Path.SETTLING, Cause.SETTLING,
    ),
    Case(
        "then the zero goes",
        replace(ASKED, capacity=0, published=Path.SETTLING),
        Path.SETTLING, Cause.SETTLING, remove=True,
    ),
    Case(
        "then it places again",
        replace(ASKED, published=Path.SETTLING),
        Path.ANNOTATION, Cause.ANNOTATIONS,
    ),
    Case(
        "the agent restarted while pods hold devices of ours: it serves them on",
        replace(ASKED, holders=1, capacity=2, remembered=True, published=Path.DRAINING),
        Path.DRAINING, Cause.DRAINING, register=True,
    ),
    # The annotation path, from a plugin that is gone.
    Case(
        "pods hold devices of a plugin that is gone",
        replace(NODE, plugin_allowed=False, holders=1, capacity=2, published=Path.PLUGIN),
        Path.SETTLING, Cause.SETTLING,
    ),
    Case(
        "pods hold devices, the key is gone from node status",
        replace(NODE, kubelet=False, holders=1),
        Path.SETTLING, Cause.SETTLING,
    ),
    Case(
        "kubelet writes the zero back as long as it remembers",
        replace(NODE, plugin_allowed=False, capacity=0, remembered=True),
        Path.SETTLING, Cause.SETTLING,
    ),
    Case(
        "a stale zero",
        replace(NODE, plugin_allowed=False, capacity=0),
        Path.SETTLING, Cause.SETTLING, remove=True,
    ),
    Case(
        "the zero is back",
        replace(NODE, plugin_allowed=False, capacity=0, published=Path.ANNOTATION),
        Path.SETTLING, Cause.SETTLING, remove=True,
    ),
    Case(
        "a count that nobody serves, as after kubelet lost its checkpoint",
        replace(NODE, plugin_allowed=False, capacity=8),
        Path.SETTLING, Cause.SETTLING, remove=True,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_path_is(case: Case) -> None:
    decision = decide(case.observation)
    assert decision == Decision(
        path=case.path,
        cause=case.cause,
        reason=decision.reason,
        register=case.register,
        remove_stale=case.remove,
    )
    assert decision.reason


def test_reasons_name_what_stands_in_the_way() -> None:
    refused = decide(replace(NODE, own=OwnPlugin.REFUSED, own_error="UNAVAILABLE: closed"))
    assert refused.reason == "kubelet refuses the device plugin: UNAVAILABLE: closed"
    assert "gpudetour.io/path=annotation" in decide(ASKED).reason
    assert "--plugin=never" in decide(replace(NODE, plugin_allowed=False)).reason
    draining = decide(replace(SERVING, annotation_asked=True, holders=1))
    assert draining.reason.startswith("1 pod still hold")
    missing = decide(Observation(devices=0, devices_missing="no libnvidia-ml.so.1 below /"))
    assert missing.reason == "no GPU to serve: no libnvidia-ml.so.1 below /"


_SECONDS = st.sampled_from([0.0, HANDOVER, inf])
_COUNTS = st.integers(0, 2)
OBSERVATIONS = st.builds(
    Observation,
    devices=_COUNTS,
    kubelet=st.booleans(),
    plugin_allowed=st.booleans(),
    annotation_asked=st.booleans(),
    foreign=st.booleans(),
    dra=st.sampled_from(["", "slices"]),
    own=st.sampled_from(OwnPlugin),
    annotation_pods=_COUNTS,
    plugin_pods=_COUNTS,
    holders=_COUNTS,
    capacity=st.none() | _COUNTS,
    remembered=st.booleans(),
    published=st.none() | st.sampled_from(Path),
    since_annotation=_SECONDS,
    since_plugin=_SECONDS,
)


@given(OBSERVATIONS)
def test_a_plugin_never_comes_beside_annotation_pods(o: Observation) -> None:
    decision = decide(o)
    if o.annotation_pods and decision.register:
        # It is there already, by an accident of timing, and pods depend on it.
        assert o.own is not OwnPlugin.IDLE or o.published in (Path.PLUGIN, Path.DRAINING)
        assert decision.path is not Path.ANNOTATION


@given(OBSERVATIONS)
def test_nothing_of_ours_begins_beside_dra(o: Observation) -> None:
    decision = decide(o)
    if o.dra and o.devices and not o.foreign:
        assert decision.path not in (Path.PLUGIN, Path.ANNOTATION)
        if decision.register:
            assert o.own is not OwnPlugin.IDLE or o.holders
        if not (o.annotation_pods or o.plugin_pods or o.holders or decision.register):
            assert "slices" in decision.reason


@given(OBSERVATIONS, st.text(), st.text())
def test_what_hinders_the_handover_is_told_and_places_nothing(
    o: Observation, trouble: str, broken: str
) -> None:
    decision = decide(o)
    hindered = with_handover(decision, trouble=trouble, broken=broken)
    assert (hindered.register, hindered.remove_stale) == (decision.register, decision.remove_stale)
    if not decision.register:
        assert hindered == decision
    elif broken:
        assert hindered.path in (Path.SETTLING, Path.DRAINING)
        assert hindered.reason.endswith(broken)
    else:
        assert (hindered.path, hindered.cause) == (decision.path, decision.cause)
        assert trouble in hindered.reason


@given(OBSERVATIONS)
def test_annotations_place_only_where_kubelet_admits(o: Observation) -> None:
    if decide(o).path is Path.ANNOTATION:
        assert not any((o.holders, o.remembered, o.foreign))
        assert o.capacity is None
        assert not decide(o).register


@given(OBSERVATIONS)
def test_a_plugin_is_the_path_only_when_kubelet_listens_to_one(o: Observation) -> None:
    if decide(o).path is Path.PLUGIN:
        assert o.foreign or o.own is OwnPlugin.SERVING
        assert not o.annotation_pods


@given(OBSERVATIONS)
def test_only_what_stays_away_is_removed(o: Observation) -> None:
    if decide(o).remove_stale:
        assert o.capacity is not None
        assert not any((o.remembered, o.holders, o.foreign))
        assert not decide(o).register


@given(OBSERVATIONS)
def test_our_plugin_does_not_leave_pods_that_hold_its_devices(o: Observation) -> None:
    serving = o.own is OwnPlugin.SERVING and o.kubelet and o.plugin_allowed and not o.foreign
    if serving and (o.holders or o.plugin_pods):
        assert decide(o).register
