"""Keys that two machines use, as one node knows of them: by what it saw, and by what it was told.

What a node saw itself stands beside the peer of that key. What another member says of our own key
is that member's word, which anyone may give: it is shown with its name, and never in place of what
we know. Both fade when they are no longer told, for the cure is at work where nobody sees it.
"""

from dataclasses import dataclass

from p2pnode.sansio import NodeId

CURE = "remove identity.key on one of them, and start it anew"
"""What helps against one key on two machines."""

_MOST_SEEN = 64
_MOST_TOLD = 8
_MOST_LETTERS = 200  # of what a member says


@dataclass(frozen=True, slots=True)
class Told:
    """What members say of our own key.

    Attributes:
        teller: Who said so last.
        words: What that one said.
        others: How many others say so too.
    """

    teller: NodeId
    words: str
    others: int


class SharedKeys:
    """The keys in use twice that a node knows of at present; texts are for a person."""

    def __init__(self, lasts: float) -> None:
        """``lasts`` is how many seconds each counts after it was seen or told last."""
        self._lasts = lasts
        self._seen: dict[NodeId, tuple[str, float]] = {}
        self._told: dict[NodeId, tuple[str, float]] = {}

    def observed(self, key: NodeId, text: str, now: float) -> None:
        """``key``, perhaps our own, was found to be in use twice."""
        _put(self._seen, key, (text, now + self._lasts), _MOST_SEEN)

    def was_told(self, teller: NodeId, words: str, now: float) -> None:
        """A member says that our own key is."""
        _put(self._told, teller, (words[:_MOST_LETTERS], now + self._lasts), _MOST_TOLD)

    def seen(self, key: NodeId, now: float) -> str:
        """Return what was found out of ``key``; empty if nothing, or too long ago."""
        text, until = self._seen.get(key, ("", now))
        return text if now < until else ""

    def told(self, now: float) -> Told | None:
        """Return what members say of our own key; None where nobody does any more."""
        valid = [(peer, words) for peer, (words, until) in self._told.items() if now < until]
        if not valid:
            return None
        teller, words = valid[-1]
        return Told(teller, words, len(valid) - 1)


def _put(
    held: dict[NodeId, tuple[str, float]], key: NodeId, what: tuple[str, float], most: int
) -> None:
    """Hold it as the newest; of too many the oldest goes."""
    held.pop(key, None)
    held[key] = what
    if len(held) > most:
        del held[next(iter(held))]
