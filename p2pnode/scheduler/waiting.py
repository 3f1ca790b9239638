"""What sessions have for an engine, as its batch scheduler sees it."""

import enum
from typing import TypeAlias

from p2pnode.sansio import NodeId
from p2pnode.values import value

SessionName: TypeAlias = tuple[NodeId, int, int]
"""Names a session of one engine; who asks comes first."""

Group: TypeAlias = tuple[int, int, int]
"""What may be computed together: the model's space, the first layer, and the one after the last."""


class Kind(enum.IntEnum):
    """How urgent it is; an int, for it is compared in each hop."""

    ROWS = 0
    """A token, or few rows: somebody waits for each."""

    PROMPT = 1
    """A batch of a prompt."""

    REPLAY = 2
    """What was computed elsewhere before, and was lost there."""


@value
class Waiting:
    """What a session has for the engine next; it has one such thing at a time.

    Attributes:
        session: Whose KV cache it extends.
        group: What it may be computed with.
        kind: How urgent it is.
        rows: How many there are, at least 1; of a replay the next batch's.
        draws: Whether a token is drawn after it.
        since: When it came.
    """

    session: SessionName
    group: Group
    kind: Kind
    rows: int
    draws: bool
    since: float

    @property
    def requester(self) -> NodeId:
        return self.session[0]

    @property
    def layers(self) -> int:
        return self.group[2] - self.group[1]
