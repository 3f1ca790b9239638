import itertools
from dataclasses import replace

from hypothesis import given, strategies as st
from rich.cells import cell_len

from p2pnode.interfaces.tui import layer_bars
from p2pnode.interfaces.tui.example import crowd, lonely, minute
from p2pnode.interfaces.tui.formats import labelled
from p2pnode.interfaces.tui.layer_bars import Bar

RUNS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda run: (run[0], sum(run))),
    max_size=40,
)


@given(RUNS)
def test_lanes_keep_every_bar_apart_and_are_as_few_as_can_be(runs: list[tuple[int, int]]) -> None:
    found = [Bar("x", "serving", first, last) for first, last in sorted(runs)]
    lanes = layer_bars.lanes(found)
    assert sorted((b.first, b.last) for lane in lanes for b in lane) == sorted(runs)
    for lane in lanes:
        assert all(left.last <= right.first for left, right in itertools.pairwise(lane))
    depth = max((sum(f <= at < e for f, e in runs) for at in range(60)), default=0)
    assert len(lanes) == depth


@given(
    st.text(max_size=30),
    st.sampled_from(["serving", "joining", "draining", "suspect", "something new"]),
    st.integers(1, 60),
)
def test_a_bar_is_exactly_as_wide_as_its_layers(name: str, state: str, width: int) -> None:
    assert cell_len(layer_bars.drawn(Bar(labelled(name), state, 0, 1), width)) == width


@given(st.integers(1, 400), st.integers(1, 200))
def test_the_axis_fits_and_bars_that_meet_leave_no_gap(n_layers: int, width: int) -> None:
    assert len(layer_bars.ticks(n_layers, width)) == width
    middle = n_layers // 2
    if middle:
        _, end = layer_bars.columns(0, middle, n_layers, width)
        start, last = layer_bars.columns(middle, n_layers, n_layers, width)
        assert start <= end <= start + 1
        assert last <= width or width < n_layers


def test_our_own_bar_comes_first_and_a_dead_peer_has_none() -> None:
    node = list(minute())[-1]
    found = layer_bars.bars(node)
    assert (found[0].name, found[0].ours) == ("kitchen", True)
    assert "boathouse" not in {bar.name for bar in found}


def test_the_house_reads_as_a_chain_in_the_first_lane() -> None:
    first, *_ = layer_bars.lanes(layer_bars.bars(list(minute())[-1]))
    assert [bar.name for bar in first] == ["kitchen", "attic", "cellar"]


def test_a_node_without_a_model_shows_the_one_most_peers_serve() -> None:
    node = replace(lonely(), peers=crowd(20).peers)
    assert layer_bars.bars(node)
    assert layer_bars.layer_count(node, layer_bars.bars(node)) == 30


def test_peers_of_another_model_have_no_bar() -> None:
    node = crowd(5)
    others = tuple(replace(peer, space_hash32=1) for peer in node.peers)
    assert [bar.name for bar in layer_bars.bars(replace(node, peers=others))] == ["kitchen"]


def test_a_hole_beyond_what_anyone_holds_is_on_the_map() -> None:
    node = replace(lonely(), missing_layers=((0, 24),))
    assert layer_bars.layer_count(node, []) == 24
