"""How each layer of an answer is computed, and whether somebody took over who computes otherwise.

An answer is bit-reproducible while every layer is computed by one arithmetic from its first shown
token to its last: then a replay gives the KV cache that was lost, bit for bit. Stages need not
compute alike among themselves.
"""

from collections.abc import Iterable, Set as AbstractSet

from p2pnode.inference.cover import Leg
from p2pnode.scheduler.chain import StageRun
from p2pnode.scheduler.directory import interval


class LayerNumerics:
    """Who computed each layer last.

    Attributes:
        changed: Why the answer is no longer bit-reproducible; empty while it is.
        is_mixed: Whether any layer was computed in two ways, shown or not.
    """

    def __init__(self) -> None:
        self.changed = ""
        self.is_mixed = False
        self._last: dict[int, StageRun] = {}

    def opened(self, legs: Iterable[Leg], *, is_shown: bool) -> None:
        """These compute from here on; what changes before a token is shown, nobody sees."""
        for leg in legs:
            for layer in leg.run.layers:
                before = self._last.get(layer)
                self._last[layer] = leg.run
                if before is None or _are_alike(before, leg.run):
                    continue
                self.is_mixed = True
                if is_shown and not self.changed:
                    self.changed = _why(before, leg.run)

    def of(self, legs: Iterable[Leg], numbers: AbstractSet[int]) -> dict[int, int]:
        """Return the numerics that the layers of some legs were computed with, by their numbers."""
        return {
            leg.number: self._last.get(leg.run.layers.start, leg.run).numerics
            for leg in legs
            if leg.number in numbers
        }


def _are_alike(before: StageRun, now: StageRun) -> bool:
    if before.peer == now.peer and not (before.numerics and now.numerics):
        return True  # it says so once, and not while an older node is in the swarm
    return bool(now.numerics) and before.numerics == now.numerics


def _why(before: StageRun, now: StageRun) -> str:
    who = f"{now.name} has taken over layers {interval(now.layers)}"
    if not now.numerics:
        return f"{who} and does not say how it computes"
    did = f"as {before.numerics_name}" if before.numerics else "without saying how"
    return f"{who} and computes as {now.numerics_name}; {before.name} did {did}"
