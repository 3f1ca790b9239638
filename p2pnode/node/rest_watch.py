"""Looks at the owner's load and at the clock, and has the node rest and resume accordingly."""

from collections.abc import Callable

import trio

from p2pnode.node.core import NodeCore
from p2pnode.node.gpu_use import find_gpus
from p2pnode.node.owners_load import OwnersLoad
from p2pnode.node.resting import Load, Rest, RestConfig, RestPolicy
from p2pnode.node.surroundings import Call
from p2pnode.node.wall_clock import minute_of_day
from p2pnode.wire.rest import RestCause

_CLOCK_EVERY = 1.0
"""Seconds between two looks at the clock where nothing else is looked at."""


class RestWatch:
    """Drives a :class:`~p2pnode.node.resting.RestPolicy`: a task on the loop.

    The look itself is a thread's, so that the loop waits for no file of the system.
    """

    def __init__(
        self,
        config: RestConfig,
        call: Call,
        load: Callable[[], Load] | None = None,
        minute: Callable[[], int] = minute_of_day,
    ) -> None:
        """``load`` returns what others used since the call before; left out, it is measured."""
        self._config = config
        self._call = call
        self._load = load
        self._minute = minute
        self._policy = RestPolicy(config)
        self._cause: RestCause | None = None
        self._thread = trio.CapacityLimiter(1)
        self._why = ""

    @property
    def why(self) -> str:
        """Why the node rests, by what was seen last; empty while it does not."""
        return self._why

    @property
    def owners_cpu(self) -> float | None:
        """Share of all cores that others used when it was looked at last; None where it is not."""
        return self._policy.load.cpu if self._config.when_idle else None

    async def run(self) -> None:
        """Look again and again until cancelled; nothing at all where the node never rests."""
        if self._config.is_always:
            return
        if self._config.when_idle and self._load is None:
            self._load = await trio.to_thread.run_sync(self._measure, abandon_on_cancel=True)
        while True:
            await self.look()
            await trio.sleep(self._pause())

    async def look(self) -> None:
        """Look once, and have the node rest or resume if that is what follows."""
        load = Load()
        if self._config.when_idle and self._load is not None:
            load = await trio.to_thread.run_sync(
                self._load, abandon_on_cancel=True, limiter=self._thread
            )
        self._decide(self._policy.look(load, self._minute(), trio.current_time()))

    def _pause(self) -> float:
        if not self._config.when_idle:
            return _CLOCK_EVERY
        works = self._call(_computes_for_others)
        return self._config.look_every if works else self._config.look_idle

    def _decide(self, rest: Rest | None) -> None:
        cause = None if rest is None else rest.cause
        self._why = "" if rest is None else rest.words
        if cause is not self._cause:
            self._cause = cause
            self._call(lambda core, now: core.rest(rest, now))

    def _measure(self) -> OwnersLoad:
        return OwnersLoad(self._config.above, find_gpus())


def _computes_for_others(core: NodeCore, now: float) -> bool:
    del now
    return any(stage.requester != core.node_id for stage in core.inference.stages())
