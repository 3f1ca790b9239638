"""Trust without a ledger: whoever failed an answer is passed over for a few seconds."""

from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import MEANINGS, Offence
from p2pnode.scheduler.standing import Standing


class BriefDistrust:
    """Stands in where a node keeps no ledger. An evidence machine: it forgets by itself."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[NodeId, tuple[float, str]] = {}

    def note(
        self, peer: NodeId, offence: Offence, evidence: str, now: float, *, share: float = 1.0
    ) -> None:
        if share >= 1.0:
            clause = MEANINGS[offence].clause
            self._until[peer] = (now + self._seconds, f"{clause} a moment ago: {evidence}")

    def served(self, peer: NodeId, tokens: int, now: float) -> None:
        """Good conduct is not remembered either."""

    def observed(self, peer: NodeId, layer_us: float, now: float) -> None:
        """Nor is slowness."""

    def took_at_most(self, peer: NodeId, layer_us: float, now: float) -> None:
        """Nor is speed."""

    def standing(self, now: float) -> Standing:
        self._until = {peer: held for peer, held in self._until.items() if held[0] > now}
        return Standing(excluded={peer: reason for peer, (_, reason) in self._until.items()})
