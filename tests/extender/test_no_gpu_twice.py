"""No GPU twice, whatever happens and in whatever order it is heard of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from extender.placement.ledger import Ledger
from extender.placement.state import NodeState, state_of
from gpus.model import GPU_RESOURCE, NodeName
from tests.extender.ledgers import Told, facts
from tests.extender.world import GPUS, MEMORY, World

#: How often each happens, roughly as in a busy and unlucky cluster.
HAPPENINGS = (
    *[World.create] * 3,
    *[World.schedule] * 4,
    *[World.bind_without_asking] * 2,
    *[World.bind_again] * 2,
    *[World.binding_arrives] * 6,
    *[World.hear_of_pods] * 2,
    *[World.touch] * 2,
    World.delete,
    World.scribble,
    World.wish_otherwise,
    World.end,
    World.sicken_or_heal,
    World.remove_or_return_node,
    World.hear_of_nodes,
    World.hear_of_nodes,
    World.answer_is_given_up,
    World.janitor_looks,
    World.list_pods_again,
    World.take_the_lease,
)

steps = st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 2**16))


class Choices:
    """Makes the choices of one step from one number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, options: Sequence[object]) -> object:
        self.number, place = divmod(self.number, len(options))
        return options[place]


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, min_size=40, max_size=100))
def test_no_gpu_is_given_twice(history: list[tuple[object, int]]) -> None:
    world = World()
    for happening, number in history:
        happening(world, Choices(number))  # type: ignore[operator]  # methods of World
        no_gpu_has_two_holders(world)
        for leader in world.leaders:
            consistent(leader.told.cluster.snapshot())
    world.calm_down()
    fresh = Told(*(world.built(name) for name in sorted(world.there)))
    for builder in world.store.values():
        fresh.pod(builder)
    for leader in world.leaders:
        heard = dict(by_node(leader.told.cluster.snapshot()))
        assert heard == dict(by_node(fresh.cluster.snapshot()))


def no_gpu_has_two_holders(world: World) -> None:
    """Look at what is stored, as an auditor would who reads only the API."""
    whole: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    counted = 0
    for builder in world.store.values():
        read = facts(builder)
        given_to_pod = world.given.get(read.uid)
        if not read.holds or given_to_pod is None:
            continue
        if read.node == "plug":
            assert read.demand is not None
            counted += read.demand.totals[GPU_RESOURCE]
        elif given_to_pod.share_bytes:
            (device,) = given_to_pod.devices()
            shares[device] += given_to_pod.share_bytes
        else:
            whole.update(given_to_pod.devices())
    assert not [device for device, holders in whole.items() if holders > 1]
    assert not [device for device, used in shares.items() if used > MEMORY]
    assert not whole.keys() & shares.keys()
    assert counted <= GPUS


def consistent(ledger: Ledger) -> None:
    """Compare everything that the ledger keeps twice or derives; see its invariants."""
    for read in ledger.pods.values():
        homes = [name for name, state in ledger.nodes.items() if read.uid in state.pods]
        assert homes == ([read.node] if read.holds else [])
    in_states = Counter(id(r) for state in ledger.nodes.values() for r in kept(state))
    in_index = Counter(id(r) for kept_of in ledger.reservations.values() for r in kept_of)
    in_index.update(id(hold) for hold in ledger.holds.values())
    assert in_states == in_index
    for state in ledger.nodes.values():
        again = state_of(
            facts=state.facts,
            pods=state.pods,
            reserved=state.reserved,
            holds=state.holds,
            ended=state.ended,
        )
        assert again == state
        for part in ("free", "blocked", "open", "shares"):
            assert getattr(again, part) == getattr(state, part)


def kept(state: NodeState) -> list[object]:
    return [*state.reserved.values(), *state.holds.values()]


def by_node(ledger: Ledger) -> Iterator[tuple[NodeName, object]]:
    for name, state in ledger.nodes.items():
        if state.facts is not None or state.pods:
            yield name, (state.facts, state.pods)
