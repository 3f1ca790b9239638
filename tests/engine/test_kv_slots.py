"""The budget holds whatever the sessions do, and a refusal changes nothing."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.base import EXACT, KvSizes
from p2pnode.engine.kv_slots import KvSlots
from p2pnode.engine.numpy.kv_cache import NumpySlot
from p2pnode.errors import CapacityError, LocalProtocolError

LAYERS = range(2, 5)
POSITION = 3 * 2 * 2 * 8 * 4  # layers x (keys, values) x heads x head_dim x float32


def cache(
    positions: int = 1000,
    context: int = 1000,
    *,
    sizes: KvSizes = EXACT,
    slot: type[NumpySlot] = NumpySlot,
) -> KvSlots[NumpySlot]:
    return KvSlots(
        partial(slot, n_kv_heads=2, head_dim=8),
        width=2 * 8,
        dtype=np.float32,
        max_positions=context,
        budget_bytes=positions * POSITION,
        sizes=sizes,
    )


def test_what_was_written_survives_growth() -> None:
    kept = cache()
    slot = kept.slot(b"s", LAYERS, 10)
    for number, (keys, values) in enumerate(zip(slot.keys, slot.values, strict=True)):
        keys[:, :10] = number
        values[:, :10] = -number
    slot.length = 10
    grown = kept.slot(b"s", LAYERS, 500)
    assert grown.capacity >= 500
    for number, (keys, values) in enumerate(zip(grown.keys, grown.values, strict=True)):
        assert keys.shape == values.shape == (2, grown.capacity, 8)
        assert (keys[:, :10] == number).all()
        assert (values[:, :10] == -number).all()


def test_a_session_may_run_two_runs_of_layers() -> None:
    kept = cache()
    kept.slot(b"s", range(1), 10).length = 10
    kept.slot(b"s", LAYERS, 20).length = 20
    assert (kept.length(b"s", 0), kept.length(b"s", 2), kept.length(b"s", 1)) == (10, 20, 0)
    kept.close(b"s")
    assert kept.reserved_bytes() == 0


def test_a_run_of_another_length_is_our_bug() -> None:
    kept = cache()
    kept.slot(b"s", LAYERS, 10)
    with pytest.raises(LocalProtocolError):
        kept.slot(b"s", range(2, 4), 11)


def test_when_doubling_does_not_fit_the_needed_does() -> None:
    kept = cache(positions=100)
    kept.slot(b"s", LAYERS, 60)
    assert kept.slot(b"s", LAYERS, 70).capacity == 70


def test_the_context_is_a_bound() -> None:
    kept = cache(context=100)
    assert kept.slot(b"s", LAYERS, 90).capacity == 90
    assert kept.slot(b"s", LAYERS, 95).capacity == 100
    with pytest.raises(CapacityError, match="context is full"):
        kept.slot(b"s", LAYERS, 101)
    with pytest.raises(CapacityError, match="context is full"):
        kept.reserve(b"t", LAYERS, 101)


def test_a_reservation_is_exact_and_spares_growth() -> None:
    kept = cache()
    kept.reserve(b"s", LAYERS, 300)
    assert kept.reserved_bytes() == 300 * POSITION
    before = kept.slot(b"s", LAYERS, 1).keys[0]
    assert kept.slot(b"s", LAYERS, 300).keys[0] is before


def test_a_refused_session_is_not_open() -> None:
    kept = cache(positions=100)
    with pytest.raises(CapacityError, match="free") as caught:
        kept.reserve(b"s", LAYERS, 101)
    assert caught.value.hint
    assert kept.reserved_bytes() == 0


BLOCKS, DOUBLING = KvSizes(256), KvSizes(256, doubles=True, most=1024)


@pytest.mark.parametrize(
    ("sizes", "positions", "expected"),
    [
        (EXACT, 600, 600),
        (BLOCKS, 0, 0),
        (BLOCKS, 1, 256),
        (BLOCKS, 256, 256),
        (BLOCKS, 600, 768),
        (DOUBLING, 0, 0),
        (DOUBLING, 256, 256),
        (DOUBLING, 257, 512),
        (DOUBLING, 600, 1024),
        (KvSizes(256, doubles=True, most=768), 600, 768),
    ],
)
def test_a_cache_takes_what_its_engine_makes(sizes: KvSizes, positions: int, expected: int) -> None:
    assert sizes.rounded(positions) == expected
    kept = cache(positions=expected, sizes=sizes)
    if positions:
        kept.reserve(b"s", LAYERS, positions)
        assert kept.reserved_bytes() == kept.budget_bytes == expected * POSITION
        with pytest.raises(CapacityError, match="no memory"):
            cache(positions=expected - 1, sizes=sizes).reserve(b"s", LAYERS, positions)


@given(st.sampled_from([EXACT, BLOCKS, DOUBLING]), st.integers(1, 1000), st.integers(1, 1000))
def test_what_is_admitted_is_never_refused(sizes: KvSizes, one: int, other: int) -> None:
    """The core reckons with :meth:`KvSizes.rounded`; the engine must not reckon otherwise."""
    needed = (sizes.rounded(one) + sizes.rounded(other)) * POSITION
    kept = cache(positions=needed // POSITION, sizes=sizes)
    for session, positions in ((b"s", one), (b"t", other)):
        kept.reserve(session, LAYERS, positions)
        for end in {1, positions // 2 + 1, positions}:
            kept.slot(session, LAYERS, end)
    assert kept.reserved_bytes() == needed


def test_a_session_within_its_last_block_needs_nothing_more() -> None:
    kept = cache(positions=256, sizes=BLOCKS)
    kept.reserve(b"s", LAYERS, 10)
    assert kept.slot(b"s", LAYERS, 200).capacity >= 200
    kept.close(b"s")
    assert kept.reserved_bytes() == 0


class Bordered(NumpySlot):
    """One that cannot grow beyond a border once it has positions, as LongRoPE's."""

    def resize(self, capacity: int) -> None:
        if self.length and capacity > BORDER:
            raise CapacityError("the session outgrew its context")
        super().resize(capacity)


BORDER = 400


def test_doubling_stops_at_a_border_that_the_session_does_not_reach() -> None:
    kept = cache(slot=Bordered)
    kept.slot(b"s", LAYERS, 210).length = 210
    assert kept.slot(b"s", LAYERS, 211).capacity == 211
    kept.slot(b"s", LAYERS, BORDER).length = BORDER
    held = kept.reserved_bytes()
    with pytest.raises(CapacityError, match="outgrew"):
        kept.slot(b"s", LAYERS, BORDER + 1)
    assert kept.reserved_bytes() == held


Step = tuple[str, int, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["slot", "reserve", "close"]), st.integers(0, 3), st.integers(1, 400)
        ),
        max_size=40,
    )
)
def test_the_budget_is_kept_and_counted(steps: list[Step]) -> None:
    kept = cache(positions=500)
    capacity: dict[int, int] = {}
    for action, session, positions in steps:
        key = bytes([session])
        before = kept.reserved_bytes()
        try:
            if action == "close":
                kept.close(key)
                capacity.pop(session, None)
            elif action == "reserve":
                kept.reserve(key, LAYERS, positions)
            else:
                kept.slot(key, LAYERS, positions)
        except CapacityError:
            assert kept.reserved_bytes() == before
            continue
        if action != "close":
            capacity[session] = kept.slot(key, LAYERS, 1).capacity
            assert capacity[session] >= positions
        assert kept.reserved_bytes() == sum(capacity.values()) * POSITION <= kept.budget_bytes


def test_arrays_are_float32() -> None:
    assert cache().slot(b"s", LAYERS, 1).keys[0].dtype == np.float32
