from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from rich.cells import cell_len

from p2pnode.interfaces.tui import formats
from p2pnode.interfaces.tui.example import crowd, lonely


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0K"), (1024, "1.0K"), (34_000, "33K"), (5 * 2**30, "5.0G")],
)
def test_short_bytes(number: int, text: str) -> None:
    assert formats.short_bytes(number) == text


def test_long_bytes_name_their_unit() -> None:
    assert formats.long_bytes(512) == "512 B"
    assert formats.long_bytes(512 * 2**20) == "512 MiB"


def test_short_counts_keep_what_is_less_than_one() -> None:
    assert [formats.short_count(n) for n in (0, 0.31, 1, 999, 1500)] == [
        "0", "0.3", "1", "999", "1.5k",
    ]  # fmt: skip


@given(st.floats(0, 2**59))
def test_a_short_number_is_short(number: float) -> None:
    assert len(formats.short_bytes(number)) <= 5
    assert len(formats.short_count(number)) <= 5


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0%"), (0.0004, "<0.1%"), (0.061, "6.1%"), (0.31, "31%"), (1, "100%")]
)
def test_a_small_share_is_not_rounded_to_nothing(part: float, text: str) -> None:
    assert formats.share(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (4.9, "4s"), (200, "3m 20s"), (11_400, "3h 10m"), (190_000, "2d 4h")],
)
def test_span(seconds: float, text: str) -> None:
    assert formats.span(seconds) == text


def test_ago() -> None:
    assert [formats.ago(s) for s in (None, 0.2, 97, 7300)] == ["never", "now", "1m", "2h"]


def test_what_is_not_known_is_a_dash() -> None:
    assert formats.milliseconds(None) == "-"
    assert formats.layers((0, 0)) == "-"
    assert formats.layers((3, 7)) == "[3, 7)"


def test_a_sparkline_shows_a_whisper_and_keeps_silence() -> None:
    assert formats.sparkline([0, 1, 1000, 500], 10) == " ▁█▄"
    assert formats.sparkline([0, 0], 10) == "  "
    assert formats.sparkline([], 10) == ""


@given(st.lists(st.floats(0, 1e12), max_size=80), st.integers(-3, 100))
def test_a_sparkline_never_exceeds_its_width(values: list[float], width: int) -> None:
    assert len(formats.sparkline(values, width)) == min(len(values), max(0, width))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 60))
def test_resampling_stays_between_the_extremes(values: list[float], width: int) -> None:
    for value in formats.resampled(values, width):
        assert min(values) - 1e-6 <= value <= max(values) + 1e-6


@given(st.text(), st.integers(0, 20))
def test_clip(text: str, width: int) -> None:
    text = formats.labelled(text)
    clipped = formats.clip(text, width)
    assert cell_len(clipped) <= width
    assert clipped == text or clipped.endswith("…") or not width


def test_an_escape_sequence_in_a_peers_name_does_not_reach_the_terminal() -> None:
    node = crowd(2)
    evil = replace(node.peers[0], name="\x1b]0;owned\x07", addresses=("a\nb:1",))
    clean = formats.labelled(replace(node, peers=(evil, node.peers[1]), counters={"a\x1b": 1}))
    assert clean.peers[0].name == "]0;owned"
    assert clean.peers[0].addresses == ("a b:1",)
    assert clean.peers[1] == node.peers[1]
    assert clean.counters == {"a": 1}


def test_what_steers_nothing_stays_as_it_is() -> None:
    assert formats.labelled(lonely()) == lonely()
