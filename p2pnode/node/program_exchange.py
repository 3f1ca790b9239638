"""How the program that runs a node sends frames to others' programs, and takes theirs."""

from collections.abc import Callable

import trio

from p2pnode.errors import UserError
from p2pnode.net.reactor import Reactor
from p2pnode.node.core import NodeCore
from p2pnode.node.events import NodeEvent
from p2pnode.node.program_frames import Received
from p2pnode.sansio import NodeId
from p2pnode.wire.vframe import Frame


class ProgramExchange:
    """Frames of the running node's program; the core bounds what waits for it."""

    def __init__(self, reactor: Reactor[NodeCore, NodeEvent]) -> None:
        self._reactor = reactor
        self._incoming: Incoming | None = None

    def send(self, peer: str, frame: Frame) -> None:
        """Send ``frame`` to the program of the peer that ``peer`` names, or heads the key of.

        Raises:
            UserError: Nobody is called so, or several are; or the frame is none of a program's.
            BusyError: It cannot be sent now.
        """

        def send(core: NodeCore, now: float) -> None:
            meant = core.planner.meant(peer)
            if meant is None:
                raise UserError(
                    f"nobody here is called {peer!r}",
                    hint="name a peer of the snapshot, or say the first letters of its key",
                )
            core.send_frame(meant, frame, now)

        self._reactor.call(send)

    def name_of(self, peer: NodeId) -> str:
        """Return what ``peer`` is called, or the head of its key."""
        return self._reactor.call(lambda core, now: core.planner.name_of(peer))

    def open(self) -> "Incoming":
        """Take what others' programs send from now on, until that is closed.

        Raises:
            UserError: Somebody takes it already.
        """
        if self._incoming is not None:
            raise UserError("the frames of this node are taken already", hint="share one reader")
        self._reactor.call(lambda core, now: core.programs.open())
        self._incoming = Incoming(self._take, self._close)
        return self._incoming

    def wake(self) -> None:
        """A frame waits where none did before."""
        if self._incoming is not None:
            self._incoming.wake()

    def end(self) -> None:
        """The node has ended: nothing comes any more."""
        if self._incoming is not None:
            self._incoming.close()

    def _take(self) -> Received | None:
        return self._reactor.call(lambda core, now: core.programs.take())

    def _close(self) -> None:
        self._incoming = None
        self._reactor.call(lambda core, now: core.programs.close())


class Incoming:
    """What others' programs send, in order; one task at a time iterates over it."""

    def __init__(self, take: Callable[[], Received | None], forget: Callable[[], None]) -> None:
        self._take = take
        self._forget = forget
        self._news = trio.Event()
        self._is_open = True

    def wake(self) -> None:
        self._news.set()

    def close(self) -> None:
        """Take nothing any more; whoever waits for a frame is told that there is none."""
        if self._is_open:
            self._is_open = False
            self._forget()
            self._news.set()

    def __aiter__(self) -> "Incoming":
        return self

    async def __anext__(self) -> Received:
        await trio.lowlevel.checkpoint()
        while self._is_open:
            self._news = trio.Event()
            if (taken := self._take()) is not None:
                return taken
            await self._news.wait()
        raise StopAsyncIteration
