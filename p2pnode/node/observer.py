"""Who hears of the moments of a message that only the core can tell; a node as such has nobody."""

from typing import Protocol


class Observer(Protocol):
    """A measurement's. Called in whichever thread runs the core, and while a message waits."""

    def frame_built(self) -> None:
        """The bytes of a frame to a peer are complete, and go to the transport."""

    def datagram_opened(self) -> None:
        """The transport is done with a datagram that arrived; what it brought is read next."""
