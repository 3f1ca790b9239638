from hypothesis import given, strategies as st

from p2pnode.transport.replay import WINDOW, ReplayWindow


@given(
    st.lists(
        st.one_of(
            st.integers(0, 50),
            st.integers(WINDOW - 50, WINDOW * 3),
            st.integers(0, 2**48 - 1),
        ),
        max_size=60,
    )
)
def test_a_number_is_fresh_once_and_never_when_too_old(numbers: list[int]) -> None:
    window = ReplayWindow()
    seen: set[int] = set()
    for number in numbers:
        too_old = bool(seen) and number <= max(seen) - WINDOW
        assert window.is_fresh(number) == (number not in seen and not too_old)
        if window.is_fresh(number):
            window.mark(number)
            seen.add(number)
        assert window.newest == max(seen, default=-1)


def test_everything_in_the_window_is_remembered() -> None:
    window = ReplayWindow()
    for number in range(0, 3 * WINDOW, 2):
        window.mark(number)
    newest = window.newest
    for number in range(newest - WINDOW + 1, newest):
        assert window.is_fresh(number) == bool(number % 2)
