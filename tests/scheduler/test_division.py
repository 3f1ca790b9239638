from hypothesis import given, strategies as st

from p2pnode.scheduler.division import Claimant, divide

CLAIMANTS = st.lists(
    st.builds(
        Claimant,
        st.integers(1, 1 << 32),
        st.floats(0, 1e6),
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 36),
        st.just(0),
    ),
    max_size=8,
    unique_by=lambda one: one.space,
)


def test_where_all_fit_each_gets_what_it_can_use() -> None:
    assert divide(100, [Claimant(1, 0, 30), Claimant(2, 9, 60)]) == {1: 30, 2: 60}


def test_where_they_do_not_it_goes_by_what_is_asked() -> None:
    assert divide(100, [Claimant(1, 0, 90), Claimant(2, 3, 90)]) == {1: 20, 2: 80}
    assert divide(100, [Claimant(1, 0, 90), Claimant(2, 0, 90)]) == {1: 50, 2: 50}


def test_each_has_a_layer_where_there_is_room_for_one_of_each() -> None:
    few, many = Claimant(1, 0, 90, least=30), Claimant(2, 99, 900, least=30)
    assert divide(100, [few, many]) == {1: 30, 2: 69}
    assert divide(50, [few, many])[1] == 0


def test_what_one_leaves_goes_to_the_others() -> None:
    assert divide(100, [Claimant(1, 9, 10), Claimant(2, 0, 200)]) == {1: 10, 2: 90}


def test_what_the_owner_chose_comes_first_even_beyond_the_room() -> None:
    assert divide(100, [Claimant(1, 99, 200), Claimant(2, 0, 200, pinned=70)]) == {1: 30, 2: 70}
    assert divide(100, [Claimant(1, 99, 200), Claimant(2, 0, 200, pinned=170)]) == {1: 0, 2: 170}


def test_of_nothing_everybody_gets_nothing() -> None:
    assert divide(0, [Claimant(1, 1, 10), Claimant(2, 1, 0)]) == {1: 0, 2: 0}
    assert divide(5, []) == {}


@given(st.integers(0, 1 << 40), CLAIMANTS)
def test_never_more_than_there_is_and_never_more_than_can_be_used(
    room: int, claimants: list[Claimant]
) -> None:
    given_bytes = divide(room, claimants)
    assert set(given_bytes) == {one.space for one in claimants}
    assert sum(given_bytes.values()) <= room * (1 + 1e-9)
    for one in claimants:
        assert 0 <= given_bytes[one.space] <= one.whole
    if sum(one.whole for one in claimants) <= room:
        assert all(given_bytes[one.space] == one.whole for one in claimants)


@given(st.integers(0, 1 << 40), CLAIMANTS)
def test_who_is_asked_more_of_equals_gets_no_less(room: int, claimants: list[Claimant]) -> None:
    given_bytes = divide(room, claimants)
    for one in claimants:
        for other in claimants:
            more = one.requests >= other.requests and one.least >= other.least
            if more and one.whole >= other.whole:
                assert given_bytes[one.space] >= given_bytes[other.space] - 1
