"""Stop strings: what is shown, when, and what never is, for any text in any cutting."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.text.overlap import overlap
from p2pnode.text.stops import LONGEST_STOP, MOST_STOPS, StopStrings

few_letters = st.text("ab\u00e9", max_size=24)
some_stops = st.lists(st.text("ab\u00e9", min_size=1, max_size=5), max_size=5)
cuts = st.lists(st.integers(0, 24), max_size=8)


def pieces_of(text: str, at: Sequence[int]) -> list[str]:
    borders = sorted({0, len(text), *(min(cut, len(text)) for cut in at)})
    return [text[start:end] for start, end in pairwise(borders)]


def first_match(text: str, stops: Sequence[str]) -> tuple[int, str | None]:
    for start in range(len(text)):
        for stop in sorted(stops, key=len):
            if text.startswith(stop, start):
                return start, stop
    return len(text), None


def surely_shown(text: str, stops: Sequence[str]) -> int:
    """Return how many characters no continuation of ``text`` can take back, by trying them all."""
    start, _ = first_match(text, stops)
    for at in range(start):
        rest = text[at:]
        if any(len(rest) < len(stop) and stop.startswith(rest) for stop in stops):
            return at
    return start


@given(text=few_letters, stops=some_stops, at=cuts)
def test_any_cutting_shows_the_text_up_to_the_earliest_match(
    text: str, stops: list[str], at: list[int]
) -> None:
    start, stop = first_match(text, stops)
    filtered = StopStrings(stops)
    shown = "".join(filtered.push(piece) for piece in pieces_of(text, at))
    assert shown + filtered.finish() == text[:start]
    assert filtered.matched == stop
    if stop is not None:
        assert filtered.push(stop) == filtered.finish() == ""


@given(text=few_letters, stops=some_stops)
def test_no_more_and_no_less_is_held_back_than_must_be(text: str, stops: list[str]) -> None:
    filtered = StopStrings(stops)
    shown = ""
    for at, letter in enumerate(text, 1):
        shown += filtered.push(letter)
        assert shown == text[: surely_shown(text[:at], stops)]


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "rest", "matched"),
    [
        (["\n\n"], ["one\n", "two\n", "\nthree"], ["one", "\ntwo", ""], "", "\n\n"),
        (["</s>"], ["a <", "/b> ", "</", "s"], ["a ", "</b> ", "", ""], "</s", None),
        # The one inside matched first, but the one around it begins earlier.
        (["abcd", "bc"], ["abc", "d"], ["", ""], "", "abcd"),
        (["abcd", "bc"], ["abc", "x"], ["", "a"], "", "bc"),
        (["abcd", "bc"], ["abc"], [""], "a", "bc"),
        (["abc", "ab"], ["xab"], ["x"], "", "ab"),
        (["User:"], ["Us", "Us", "er", ":"], ["", "Us", "", ""], "", "User:"),
        ([], ["any", "thing"], ["any", "thing"], "", None),
    ],
)
def test_what_is_shown_when(
    stops: list[str], pieces: list[str], shown: list[str], rest: str, matched: str | None
) -> None:
    filtered = StopStrings(stops)
    assert [filtered.push(piece) for piece in pieces] == shown
    assert filtered.finish() == rest
    assert filtered.matched == matched


@pytest.mark.parametrize(
    ("stops", "said"),
    [
        ([""], "is empty"),
        (["x" * (LONGEST_STOP + 1)], "has 257 characters"),
        ([str(number) for number in range(MOST_STOPS + 1)], "there are 17 stop strings"),
    ],
)
def test_what_cannot_be_a_stop_string_is_refused(stops: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        StopStrings(stops)
    assert caught.value.hint


def test_the_most_and_the_longest_are_taken_and_each_counts_once() -> None:
    stops = [chr(ord("a") + number) * LONGEST_STOP for number in range(MOST_STOPS)]
    filtered = StopStrings([*stops, *stops])
    assert filtered.push("a" * (LONGEST_STOP - 1)) == ""
    assert filtered.push("b") == "a" * (LONGEST_STOP - 1)
    assert filtered.push("b" * LONGEST_STOP) == ""
    assert filtered.matched == "b" * LONGEST_STOP


@given(text=few_letters, word=st.text("ab\u00e9", min_size=1, max_size=8))
def test_an_overlap_is_the_longest_beginning_that_ends_the_text(text: str, word: str) -> None:
    ends = [size for size in range(len(word)) if text.endswith(word[:size])]
    assert overlap(text, word) == max(ends)
