"""Classes of traffic: what leaves first, and how much of each may wait."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from p2pnode.errors import ConfigError
from p2pnode.transport.events import Delivery
from p2pnode.transport.memory import PART
from p2pnode.wire.vframe import MAX_FRAME, Frame, MessageType


class TrafficClass(IntEnum):
    """What a message is for; a lesser number leaves first."""

    THINK = 0
    """A token's row: somebody waits for each."""
    SYNC = 1
    """Control: a chain opens, closes, or is asked how far it is."""
    PROMPT = 2
    """Rows of a prompt, several at once."""
    REPLAY = 3
    """Rows that were sent before, to whoever takes over from a lost stage."""
    GOSSIP = 4
    """What membership tells in more than one datagram."""
    ASK = 5
    """Frames of programs: an Ask or a Critique."""
    CACHE = 6
    """Keys and values of attention."""
    WEIGHTS = 7
    """Parts of models."""

    @property
    def label(self) -> str:
        """What it is called in counters and pictures."""
        return self.name.lower()


BREAKS_ANSWERS: Final = frozenset(
    {TrafficClass.THINK, TrafficClass.SYNC, TrafficClass.PROMPT, TrafficClass.REPLAY}
)
"""Of these nothing may be missing, or an answer waits for it: without room for one, the peer counts
as lost. Whoever sends anything else is told that there is no room, and sends it later."""

DELIVERIES: Final = (*(Delivery.LATENCY,) * 3, *(Delivery.BULK,) * 2, *(Delivery.BACKGROUND,) * 3)
"""How each class travels, by its number."""

_OF_TYPES: Final = {
    MessageType.THINK: TrafficClass.THINK,
    MessageType.CACHE: TrafficClass.CACHE,
    MessageType.ASK: TrafficClass.ASK,
    MessageType.SYNC: TrafficClass.SYNC,
    MessageType.CRITIQUE: TrafficClass.ASK,
}


def class_of(frame: Frame, *, is_replay: bool = False) -> TrafficClass:
    """Return the class of a frame; ``is_replay`` where it was sent before, to somebody else."""
    if frame.type is not MessageType.THINK:
        return _OF_TYPES[frame.type]
    if is_replay:
        return TrafficClass.REPLAY
    slices = frame.slices
    is_row = not slices or slices[0].shape[0] == 1
    return TrafficClass.THINK if is_row else TrafficClass.PROMPT


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of memory that may wait to be sent, with what Python puts around them.

    Attributes:
        each: For one peer; at least one frame and what is around it, 128 KiB.
        total: For all peers together. Nobody gets more than a quarter of what is free of it, so
            five times ``each`` lets one peer have that.
    """

    each: int
    total: int

    def __post_init__(self) -> None:
        if not 2 * MAX_FRAME <= self.each <= self.total // (PART + 1):
            raise ConfigError(
                f"a budget of {self.each} bytes a peer and {self.total} in all is none",
                hint=f"a peer needs {2 * MAX_FRAME}, and all together {PART + 1} times as much",
            )


@dataclass(frozen=True, slots=True)
class Budgets:
    """What may wait of each class, beyond what the transport has been handed. Guesses all.

    Attributes:
        think: A row is 2 to 32 KiB; many sessions' rows of some round trips.
        sync: An order has less than 1 KiB, or 64 with a long past.
        prompt: At least one batch and ``replay_window``: 512 rows of 8,192 numbers are 16 MiB.
        replay: As ``prompt``.
        gossip: A table of a thousand members, and one more.
        ask: More than programs may have under way, ``under_way_bytes``.
        cache: A position of SmolLM2-135M is 46 KiB in f32: some hundred positions, coded.
        weights: A chunk under way, and the next.
        total: Bytes of all classes, for all peers that are proven; none of them gets more than a
            quarter of what is free. As the transport's ``send_queue_total_bytes``.
        unproven: The same for all others. As its ``unproven_bytes``.
        mute: Bytes of all classes for a peer that is not proven, that acknowledged no message yet,
            or none for ``silence``. As its ``mute_queue_bytes``.
    """

    think: Budget = Budget(4 << 20, 20 << 20)
    sync: Budget = Budget(1 << 20, 8 << 20)
    prompt: Budget = Budget(24 << 20, 120 << 20)
    replay: Budget = Budget(24 << 20, 120 << 20)
    gossip: Budget = Budget(1 << 20, 8 << 20)
    ask: Budget = Budget(2 << 20, 16 << 20)
    cache: Budget = Budget(4 << 20, 20 << 20)
    weights: Budget = Budget(2 << 20, 16 << 20)
    total: int = 240 << 20
    unproven: int = 16 << 20
    mute: int = 4 << 20

    def __post_init__(self) -> None:
        if min(self.mute, self.unproven // (PART + 1), self.total // (PART + 1)) < 2 * MAX_FRAME:
            raise ConfigError(
                "what may wait to be sent to one peer is less than two frames",
                hint=f"mute is at least {2 * MAX_FRAME}, the totals {PART + 1} times as much",
            )

    def of_classes(self) -> tuple[Budget, ...]:
        """Return the budget of each class, by its number."""
        urgent = (self.think, self.sync, self.prompt, self.replay)
        return (*urgent, self.gossip, self.ask, self.cache, self.weights)
