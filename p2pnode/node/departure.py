"""Leaving the swarm: the sessions of others end, everybody is told, then ours close."""

from p2pnode.node.events import Departed
from p2pnode.node.life import Evidence, Phase
from p2pnode.node.narration import LEAVING
from p2pnode.node.parts import NodeParts
from p2pnode.node.wiring import Wiring


class Departure:
    """One node's; where it has come to is in the node's life."""

    def __init__(self, parts: NodeParts, wiring: Wiring) -> None:
        self._parts = parts
        self._wiring = wiring

    def begin(self, deadline: float, now: float) -> None:
        """Take on nothing new; the sessions of others end by ``deadline``.

        Asked again, a node leaves no later than before.
        """
        parts, life = self._parts, self._parts.life
        if life.phase is Phase.DRAINING:
            life.deadline = min(deadline, life.deadline or deadline)
        elif not life.is_leaving:
            life.move(Evidence.LEAVE_ASKED, deadline=deadline)
            parts.say(parts.narration.farewell(parts.inference.stages(), deadline - now))
            parts.inference.cancel_all(now)
            parts.inference.drain(LEAVING)
            parts.serving.announce(now)

    def go_on(self, now: float) -> None:
        """Do what is next, if it is time."""
        parts, life = self._parts, self._parts.life
        due = life.deadline is not None and now >= life.deadline
        if life.phase is Phase.DRAINING and (due or not parts.inference.stages()):
            self._say_farewell(now)
        if life.phase is Phase.DEPARTING and parts.endpoint.is_closed:
            life.move(Evidence.FAREWELL_HEARD)
            parts.say("left the swarm")
            parts.events.append(Departed())

    def _say_farewell(self, now: float) -> None:
        parts, config = self._parts, self._parts.config
        parts.inference.give_up(LEAVING)
        parts.swim.leave(now, told=parts.endpoint.peers()[: config.farewells])
        self._wiring.exchange(now)
        parts.outbox.sessions_close(now)
        deadline = now + config.farewell
        parts.endpoint.close_when_flushed(LEAVING, deadline, now)
        parts.life.move(Evidence.DRAINED, deadline=deadline)
