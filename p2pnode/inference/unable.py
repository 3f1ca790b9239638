"""Stages that cannot draw as an answer wants: no offence, and no cure for it in another try.

An older version refuses the order, and so does one that lacks what a schema needs. Others may do
better. Where the same peer says so again, all others were tried; where two stages failed at the
draw itself, a third will.
"""

from p2pnode.inference.draw_body import NOBODYS_LAYER
from p2pnode.inference.messages import Refusal
from p2pnode.sansio import NodeId


class Unable:
    """Who could not draw in one answer."""

    def __init__(self) -> None:
        self._refused: set[NodeId] = set()
        self._failures = 0

    @staticmethod
    def why(code: str, reason: str) -> str | None:
        """Return why a stage cannot draw as asked; None where it refused for something else."""
        if code == Refusal.SAMPLING:
            return reason
        if code == Refusal.LAYERS and str(NOBODYS_LAYER) in reason:
            return "its version is older"
        return None

    def refused(self, peer: NodeId) -> bool:
        """Note that ``peer`` refused; return whether everybody has been asked."""
        is_known = peer in self._refused
        self._refused.add(peer)
        return is_known

    def failed(self) -> bool:
        """Note that a draw failed; return whether others would fail alike."""
        self._failures += 1
        return self._failures > 1
