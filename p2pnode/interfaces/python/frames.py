"""Frames that other programs send to this one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from p2pnode.node.program_exchange import Incoming
from p2pnode.sansio import NodeId
from p2pnode.wire.messages import Ask, Critique
from p2pnode.wire.vframe import Frame


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A frame that the program of a peer sent.

    Attributes:
        peer: The peer's ed25519 key, in hex: who sent it is certain.
        name: What its owner calls it; not unique.
        message: What it says.
    """

    peer: str
    name: str
    message: Ask | Critique

    @property
    def frame(self) -> Frame:
        """The V-Frame that carried it."""
        return self.message.to_frame()


class Frames:
    """An iterator of what other programs send, for one task at a time.

    For instance::

        with node.frames() as frames:
            async for received in frames:
                ...

    Until it is closed, 64 frames and 2 MiB of each peer wait at the most, 16 MiB in all; what is
    beyond is dropped and counted in the snapshot. It ends when it is closed or the node ends.
    """

    def __init__(self, incoming: Incoming, name_of: Callable[[NodeId], str]) -> None:
        self._incoming = incoming
        self._name_of = name_of

    def close(self) -> None:
        """Take nothing any more; what waits is dropped."""
        self._incoming.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedFrame:
        taken = await anext(self._incoming)
        return ReceivedFrame(taken.peer.hex(), self._name_of(taken.peer), taken.message)
