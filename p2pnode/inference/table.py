"""The stages of one node: by session, by the stream that leads to each, and what waits in them."""

from collections import Counter
from collections.abc import Iterator

from p2pnode.inference.messages import Open
from p2pnode.inference.shares import IsProven, Parties, everybody
from p2pnode.inference.stage import Stage, StageKey, size_of
from p2pnode.sansio import NodeId


class StageTable:
    """Finds stages.

    Invariants: each stage has one door, the edge on which its newest order says that its input
    comes, and each door leads to one stage; ``waiting`` is what waits in all stages together.

    Attributes:
        waiting: Bytes of activations that wait to be computed.
    """

    def __init__(self, is_proven: IsProven = everybody) -> None:
        self._is_proven = is_proven
        self._stages: dict[StageKey, Stage] = {}
        self._doors: dict[tuple[NodeId, int], StageKey] = {}
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._stages)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages.values())

    def __getitem__(self, key: StageKey) -> Stage:
        return self._stages[key]

    def get(self, key: StageKey) -> Stage | None:
        return self._stages.get(key)

    def behind(self, peer: NodeId, stream: int) -> Stage | None:
        """Return the stage whose input comes from ``peer`` on ``stream``."""
        key = self._doors.get((peer, stream))
        return None if key is None else self._stages[key]

    def of_session(self, requester: NodeId, session: int) -> list[Stage]:
        return [stage for key, stage in self._stages.items() if key[:2] == (requester, session)]

    def precludes(self, order: Open, requester: NodeId) -> bool:
        """Whether the stage that ``order`` asks for is here already, or its stream taken."""
        key = (requester, order.session, order.leg)
        return key in self._stages or _door(order) in self._doors

    def add(self, stage: Stage) -> None:
        self._stages[stage.key] = stage
        self._doors[_door(stage.order)] = stage.key

    def remove(self, stage: Stage) -> None:
        del self._stages[stage.key]
        del self._doors[_door(stage.order)]
        self.recount(stage, 0)

    def move(self, stage: Stage, order: Open) -> None:
        """Bring ``stage`` to the order's epoch.

        By the same door, nothing that came or is under way is lost. By another, whatever did not
        become a batch is sent again; and what waits stays only if the same peer sent it.
        """
        old = stage.order
        stage.is_same_way = order is not old and order.downstream == old.downstream
        # One that may begin in the middle is told where the next does.
        is_told = order.epoch > 0 or order.prefix is not None
        if order.upstream == old.upstream:
            stage.sending, stage.order = not is_told, order
            return
        del self._doors[_door(old)]
        self._doors[_door(order)] = stage.key
        stage.sending = not is_told
        if order.upstream.peer != old.upstream.peer:
            stage.queue.clear()
        stage.order = order
        stage.inbox.skip_to(stage.next_position)
        self.recount(stage, sum(map(size_of, stage.queue)))

    def recount(self, stage: Stage, waiting: int) -> None:
        """Note that ``waiting`` bytes wait in ``stage``."""
        self.waiting += waiting - stage.waiting
        stage.waiting = waiting

    def is_too_much(self, stage: Stage, size: int, most: int) -> bool:
        """Whether ``size`` bytes more are too many: beyond ``most`` each keeps to its share."""
        if self.waiting + size <= most:
            return False
        waiting: Counter[NodeId] = Counter()
        for one in self._stages.values():
            if one.waiting:
                waiting[one.requester] += one.waiting
        waiting[stage.requester] += size
        parties = Parties(waiting, self._is_proven)
        share = most // len({parties.of(requester) for requester in waiting})
        if stage.requester in parties.strangers:
            share //= len(parties.strangers)
        return waiting[stage.requester] > share


def _door(order: Open) -> tuple[NodeId, int]:
    return order.upstream.peer, order.upstream.stream
