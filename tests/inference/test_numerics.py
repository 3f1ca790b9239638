"""Whether the bits of an answer are still those that a replay would give."""

import pytest

from p2pnode.inference.cover import Leg
from p2pnode.inference.numerics import LayerNumerics
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.wire.states import Rung


def leg(number: int, name: str, layers: range, numerics: str = "") -> Leg:
    peer = NodeId(name.encode() * 32)
    hashed = sum(numerics.encode())
    run = StageRun(peer, name, layers, 1.0, "", hashed, numerics)
    return Leg(number, run, "f16", frozenset({Rung.F16}))


def after(*chains: tuple[Leg, ...], shown: bool = True) -> LayerNumerics:
    known = LayerNumerics()
    for chain in chains:
        known.opened(chain, is_shown=shown)
    return known


LOW = leg(1, "a", range(3), "x")


@pytest.mark.parametrize(
    ("lost", "instead", "why"),
    [
        (("b", "x"), ("c", "x"), ""),
        (("b", "x"), ("c", "y"), "c has taken over layers [3, 6) and computes as y; b did as x"),
        (("b", "x"), ("c", ""), "c has taken over layers [3, 6) and does not say how it computes"),
        (("b", ""), ("c", ""), "c has taken over layers [3, 6) and does not say how it computes"),
        (
            ("b", ""),
            ("c", "x"),
            "c has taken over layers [3, 6) and computes as x; b did without saying how",
        ),
        (("b", ""), ("b", ""), ""),  # it is back
        (("b", ""), ("b", "x"), ""),  # it says more: the last older node has left
        (
            ("b", "x"),
            ("b", "y"),
            "b has taken over layers [3, 6) and computes as y; b did as x",
        ),
    ],
)
def test_what_a_successor_changes(
    lost: tuple[str, str], instead: tuple[str, str], why: str
) -> None:
    def high(number: int, who: tuple[str, str]) -> Leg:
        return leg(number, who[0], range(3, 6), who[1])

    chains = (LOW, high(2, lost)), (LOW, high(3, instead))
    assert after(*chains).changed == why
    assert after(*chains, shown=False).changed == ""


def test_the_first_change_is_told_and_the_last_way_is_looked_for() -> None:
    last = (
        leg(2, "b", range(3, 6), "x"),
        leg(3, "c", range(3, 6), "y"),
        leg(4, "d", range(3, 6), "z"),
    )
    known = after(*((LOW, each) for each in last))
    assert known.changed.startswith("c has taken over")
    assert known.of((LOW, last[-1]), {4}) == {4: ord("z")}
    new = leg(9, "e", range(6, 9), "v")
    assert known.of((LOW, new), {1, 9}) == {1: ord("x"), 9: ord("v")}


def test_layers_taken_over_in_part_count() -> None:
    parts = leg(3, "c", range(3, 5), "x"), leg(4, "d", range(5, 6), "y")
    known = after((LOW, leg(2, "b", range(3, 6), "x")), (LOW, *parts))
    assert known.changed.startswith("d has taken over layers [5, 6)")
