"""Whatever sources tell, in whatever order: no GPU is forgotten, doubled, or trusted too early."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import DeviceId, Gpu, Health, NodeInventory, Source, Withheld
from nodeagent.inventory.memory import Memory
from nodeagent.inventory.source import Sighting, Survey
from nodeagent.inventory.standing import HoldDown, Moment

UUIDS = [DeviceId(f"GPU-{letter}") for letter in "abcd"]
BDF = {uuid: f"0000:0{n}:00.0" for n, uuid in enumerate(UUIDS)}
RULE = HoldDown(base=60.0)


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    seen = draw(st.lists(st.sampled_from(UUIDS), unique=True))
    sightings = []
    for index, uuid in enumerate(seen):
        complete = draw(st.booleans())
        gpu = Gpu(
            uuid=uuid,
            index=index,
            bdf=BDF[uuid] if complete else None,
            memory_bytes=1024 if complete else None,
            health=draw(st.sampled_from(Health)),
            health_reason=draw(st.sampled_from(["", "broken"])),
        )
        sightings.append(Sighting(gpu=gpu, complete=complete))
    withheld = tuple(
        Withheld(bdf=BDF[uuid], reason="there") for uuid in draw(st.sets(st.sampled_from(UUIDS)))
    )
    source = draw(st.sampled_from(Source))
    return Survey(source=source, sightings=tuple(sightings), withheld=withheld)


def at(seconds: float) -> Moment:
    return Moment(seconds, datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=seconds))


@given(st.lists(st.tuples(st.floats(0, 200), surveys() | st.none()), max_size=20))
def test_anything_that_sources_tell(steps: list[tuple[float, Survey | None]]) -> None:
    memory, now = Memory(rule=RULE), 0.0
    known: set[DeviceId] = set()
    failed: dict[DeviceId, float] = {}
    for pause, survey in steps:
        now += pause
        moment = at(now)
        sighted: dict[DeviceId, Health] = {}
        if survey is None:
            gpus = memory.silence("nothing answers", now=moment)
        else:
            gpus = memory.update(survey, why="why", now=moment)
            sighted = {each.gpu.uuid: each.gpu.health for each in survey.sightings}
        known |= sighted.keys()
        assert {gpu.uuid for gpu in gpus} == known
        assert len({gpu.index for gpu in gpus}) == len(gpus)
        assert [gpu.index for gpu in gpus] == sorted(gpu.index for gpu in gpus)
        for gpu in gpus:
            if sighted.get(gpu.uuid) in (Health.FAULTY, Health.LOST):
                failed[gpu.uuid] = now
            if gpu.health is Health.HEALTHY:
                assert sighted.get(gpu.uuid) is Health.HEALTHY
                assert now - failed.get(gpu.uuid, float("-inf")) >= RULE.base
                assert (gpu.health_reason, gpu.health_since) == ("", None)
            else:
                assert gpu.health_since is not None
        inventory = NodeInventory(source=Source.NVML, gpus=gpus)
        assert decode_inventory(encode_inventory(inventory)) == inventory


@given(st.lists(surveys(), min_size=1, max_size=5))
def test_a_new_agent_knows_what_the_one_before_told(steps: list[Survey]) -> None:
    before, after = Memory(rule=RULE), Memory(rule=RULE)
    gpus: tuple[Gpu, ...] = ()
    for number, survey in enumerate(steps):
        gpus = before.update(survey, why="", now=at(number))
    last = steps[-1]
    told = decode_inventory(encode_inventory(NodeInventory(source=last.source, gpus=gpus)))
    after.recall(told, now=at(100))
    again = after.update(last, why="", now=at(100))
    assert [(gpu.uuid, gpu.health, gpu.health_since) for gpu in again] == [
        (gpu.uuid, gpu.health, gpu.health_since) for gpu in gpus
    ]
    facts = [replace(gpu, health=Health.HEALTHY, health_reason="") for gpu in gpus]
    assert [replace(gpu, health=Health.HEALTHY, health_reason="") for gpu in again] == facts
