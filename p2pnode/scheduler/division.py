"""How the memory of one node is divided among its models, where they do not all fit."""

from collections.abc import Sequence
from typing import Final

from p2pnode.values import value

AT_REST: Final = 1.0
"""The weight of a model that nobody asks for, in requests: its owner named it, so it is kept."""


@value
class Claimant:
    """A model that wants some of the memory.

    Attributes:
        space: Names it.
        requests: What the swarm asks of it.
        whole: Bytes that all of its layers take.
        least: Bytes of one layer.
        pinned: Bytes of the layers that the owner chose; 0 where the node chooses.
    """

    space: int
    requests: float
    whole: int
    least: int = 0
    pinned: int = 0


def divide(room: int, claimants: Sequence[Claimant]) -> dict[int, int]:
    """Return the bytes of ``room`` for each model.

    What the owner chose comes first, then one layer of each. The rest goes by what the models are
    asked for; none gets more than it can use, and what one leaves goes to the others.
    """
    given = {one.space: one.pinned for one in claimants if one.pinned}
    left = max(0, room - sum(given.values()))
    sharing = [one for one in claimants if not one.pinned]
    least = {one.space: min(one.least, one.whole) for one in sharing}
    if sum(least.values()) > left:
        least = dict.fromkeys(least, 0)
    left -= sum(least.values())
    while sharing:
        total = sum(AT_REST + one.requests for one in sharing)
        shares = {one.space: int(left * (AT_REST + one.requests) / total) for one in sharing}
        content = [one for one in sharing if one.whole - least[one.space] <= shares[one.space]]
        if not content:
            return given | {space: least[space] + share for space, share in shares.items()}
        for one in content:
            given[one.space] = one.whole
            left -= one.whole - least[one.space]
        sharing = [one for one in sharing if one.space not in given]
    return given
