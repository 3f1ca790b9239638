from hypothesis import given, strategies as st

from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.resizing import Resizing
from p2pnode.testing.offers import an_offer, peer_id

US = peer_id(0)
LAYERS = 30


def resized(
    held: range, capacity: int, *others: Offer, is_wanted: bool = True, us: NodeId = US
) -> range:
    ours = an_offer(0, held.start, held.stop)
    placement = Resizing((ours, *others), us, LAYERS, held, capacity, is_wanted)()
    return held if placement is None else placement.layers


def test_with_less_memory_what_others_serve_is_left() -> None:
    assert resized(range(10, 20), 4, an_offer(1, 10, 16)) == range(16, 20)
    assert resized(range(10, 20), 4, an_offer(1, 14, 30)) == range(10, 14)


def test_the_last_holder_of_what_is_asked_for_keeps_it() -> None:
    assert resized(range(10, 20), 4) == range(10, 20)
    assert resized(range(10, 20), 4, an_offer(1, 10, 12)) == range(12, 20)
    assert len(resized(range(10, 20), 4, is_wanted=False)) == 4


def test_with_more_memory_more_is_held_around_it() -> None:
    grown = resized(range(10, 14), 10, an_offer(1, 0, 14))
    assert len(grown) == 10
    assert set(range(10, 14)) <= set(grown)


def test_what_is_held_whole_stays() -> None:
    assert resized(range(LAYERS), LAYERS) == range(LAYERS)


@given(
    st.integers(0, LAYERS - 1),
    st.integers(1, LAYERS),
    st.integers(1, LAYERS),
    st.lists(st.tuples(st.integers(0, LAYERS - 1), st.integers(1, LAYERS)), max_size=5),
    st.booleans(),
)
def test_what_is_held_is_part_of_what_was_or_the_other_way_round(
    first: int, count: int, capacity: int, others: list[tuple[int, int]], is_wanted: bool
) -> None:
    held = range(first, min(LAYERS, first + count))
    offers = [
        an_offer(number, start, min(LAYERS, start + length))
        for number, (start, length) in enumerate(others, 1)
    ]
    layers = resized(held, capacity, *offers, is_wanted=is_wanted)
    assert set(layers) <= set(held) or set(held) <= set(layers)
    assert 0 <= layers.start < layers.stop <= LAYERS
    if not is_wanted:
        assert len(layers) <= max(capacity, 1)
    left = set(held) - set(layers)
    served = {layer for offer in offers for layer in offer.layers}
    assert not is_wanted or left <= served
