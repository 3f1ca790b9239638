"""Sets of nodes from which some can be drawn at random without looking at all of them."""

from collections.abc import Sequence
from typing import overload

from p2pnode.sansio import NodeId


class Roster(Sequence[NodeId]):
    """A set with places: adding, removing, testing and drawing by place each take one step.

    The last one takes the place of whoever is removed, so the order tells nothing; but it follows
    from the calls alone, so the same calls draw the same nodes.
    """

    def __init__(self) -> None:
        self._order: list[NodeId] = []
        self._places: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._places

    @overload
    def __getitem__(self, place: int) -> NodeId: ...
    @overload
    def __getitem__(self, place: slice) -> list[NodeId]: ...
    def __getitem__(self, place: int | slice) -> NodeId | list[NodeId]:
        return self._order[place]

    def add(self, node_id: NodeId) -> None:
        """Put a node in, if it is not there."""
        if node_id not in self._places:
            self._places[node_id] = len(self._order)
            self._order.append(node_id)

    def remove(self, node_id: NodeId) -> None:
        """Take a node out, if it is there."""
        place = self._places.pop(node_id, None)
        if place is None:
            return
        last = self._order.pop()
        if last != node_id:
            self._order[place] = last
            self._places[last] = place
