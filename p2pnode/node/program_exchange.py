"""How the program that runs a node sends frames to others' programs, and takes theirs."""

from collections.abc import AsyncGenerator

import trio

from p2pnode.errors import UserError
from p2pnode.net.reactor import Reactor
from p2pnode.node.core import NodeCore
from p2pnode.node.events import NodeEvent
from p2pnode.node.program_frames import Received
from p2pnode.wire.vframe import Frame


class ProgramExchange:
    """Frames of the running node's program; the core bounds what waits for it."""

    def __init__(self, reactor: Reactor[NodeCore, NodeEvent]) -> None:
        self._reactor = reactor
        self._waits = trio.Event()
        self._is_read = False

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
                    hint="name a peer of the snapshot, or its key",
                )
            core.send_frame(meant, frame, now)

        self._reactor.call(send)

    async def received(self) -> AsyncGenerator[Received]:
        """Yield what others' programs send, from now on; one reader at a time.

        Raises:
            UserError: It is read already.
        """
        if self._is_read:
            raise UserError("the frames of this node are read already", hint="share one reader")
        self._is_read = True
        self._reactor.call(lambda core, now: core.programs.open())
        try:
            while True:
                self._waits = trio.Event()
                taken = self._reactor.call(lambda core, now: core.programs.take())
                if taken is None:
                    await self._waits.wait()
                else:
                    await trio.lowlevel.checkpoint()
                    yield taken
        finally:
            self._is_read = False
            self._reactor.call(lambda core, now: core.programs.close())

    def wake(self) -> None:
        """A frame waits where none did before."""
        self._waits.set()
