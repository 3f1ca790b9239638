"""Who holds the beginning of a prompt already, and what that is worth to a plan.

A plan goes by the time of a token. What a chain of holders saves is the prompt's, once: spread over
the tokens of the answer it may be compared. Only a whole chain counts: where one of its peers is
gone, the plan is made as ever, and whoever is in it again begins with what it holds.
"""

from dataclasses import dataclass

from p2pnode.sansio import NodeId
from p2pnode.scheduler.terrain import Visit

FEW_TOKENS = 64
"""Tokens that an answer is reckoned to have at the most: nobody knows before, and a slower chain
would be paid for with each of more. A guess."""


@dataclass(frozen=True, slots=True)
class Held:
    """A chain whose stages hold a prompt's beginning.

    Attributes:
        runs: Its peers and their layers, in order.
        positions: How many positions of the prompt they hold.
        tokens: The most tokens that the answer may have.
    """

    runs: tuple[tuple[NodeId, range], ...]
    positions: int
    tokens: int

    def saved_us(self, layer_ns: float, layers: int) -> float:
        """Return what a stage of so many layers saves a token, at a price of a prompt's position.

        ``layer_ns`` is what a position costs it in a layer.
        """
        share = max(1, min(self.tokens, FEW_TOKENS))
        return self.positions * layers * layer_ns / 1e3 / share

    def visits(
        self, peers: tuple[NodeId, ...], windows: tuple[range, ...], rooms: tuple[int, ...]
    ) -> tuple[Visit, ...] | None:
        """Return the chain among these places; None where it can be none.

        ``windows`` are the layers that each place can do, ``rooms`` how many of them.
        """
        places = {peer: place for place, peer in enumerate(peers)}
        left, found = [*rooms], list[Visit]()
        for peer, layers in self.runs:
            place = places.get(peer)
            if place is None or not layers:
                return None
            window = windows[place]
            left[place] -= len(layers)
            if layers.start < window.start or layers.stop > window.stop or left[place] < 0:
                return None
            found.append(Visit(place, layers))
        return tuple(found)
