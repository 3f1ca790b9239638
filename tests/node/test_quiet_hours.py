"""Hours of the day, over midnight too, and what is none."""

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError
from p2pnode.node.quiet_hours import QuietHours

MINUTES = st.integers(0, 1439)


def minute(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "12:00", "21:59"]),
        ("09:00-17:30", ["09:00", "17:29"], ["08:59", "17:30", "00:00", "23:59"]),
        ("00:00-23:59", ["00:00", "23:58"], ["23:59"]),
        ("23:00-00:00", ["23:00", "23:59"], ["00:00", "22:59"]),
    ],
)
def test_which_minutes_are_quiet(hours: str, inside: list[str], outside: list[str]) -> None:
    quiet = QuietHours.parse(hours)
    assert all(minute(one) in quiet for one in inside)
    assert not any(minute(one) in quiet for one in outside)


@given(MINUTES, MINUTES)
def test_what_is_written_is_read_and_the_rest_of_the_day_is_the_rest(start: int, stop: int) -> None:
    if start == stop:
        with pytest.raises(ConfigError, match="begin when they end"):
            QuietHours(start, stop)
        return
    quiet = QuietHours(start, stop)
    assert QuietHours.parse(str(quiet)) == quiet
    rest = QuietHours(stop, start)
    assert all((at in quiet) is not (at in rest) for at in range(1440))
    assert sum(at in quiet for at in range(1440)) == (stop - start) % 1440


@given(st.text(max_size=20))
def test_any_text_is_hours_or_refused(text: str) -> None:
    try:
        quiet = QuietHours.parse(text)
    except ConfigError:
        return
    assert str(quiet) == text


@pytest.mark.parametrize("text", ["", "22-7", "24:00-07:00", "22:00-7:00", "22:60-07:00", "22:00"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no hours of a day"):
        QuietHours.parse(text)
