"""How far a node is with the layers of one model, from listening for what is needed to serving.

A phase machine: the node alone moves it, so a pair that is not in the table is our own mistake and
is refused loudly.
"""

from enum import Enum, auto
from typing import Final

from p2pnode.errors import LocalProtocolError


class HoldingPhase(Enum):
    """How far it is."""

    IDLE = auto()  # holds none: a requester, or what was held is lost
    LISTENING = auto()
    CLAIMING = auto()
    LOADING = auto()
    SERVING = auto()


class HoldingEvidence(Enum):
    """What moves it."""

    MODEL_KNOWN = auto()
    CHOSEN = auto()
    CONFIRMED = auto()
    LOADED = auto()
    FAILED = auto()
    MODEL_LOST = auto()
    ENGINE_LOST = auto()
    NEEDED_ELSEWHERE = auto()


_Phase, _Evidence = HoldingPhase, HoldingEvidence

HOLDING_TRANSITIONS: Final = {
    (_Phase.IDLE, _Evidence.MODEL_KNOWN): _Phase.LISTENING,
    (_Phase.LISTENING, _Evidence.CHOSEN): _Phase.CLAIMING,
    (_Phase.CLAIMING, _Evidence.CONFIRMED): _Phase.LOADING,
    (_Phase.LOADING, _Evidence.LOADED): _Phase.SERVING,
    (_Phase.LOADING, _Evidence.FAILED): _Phase.IDLE,
    (_Phase.SERVING, _Evidence.NEEDED_ELSEWHERE): _Phase.CLAIMING,
    **{
        (phase, evidence): _Phase.IDLE
        for evidence in (_Evidence.MODEL_LOST, _Evidence.ENGINE_LOST)
        for phase in (_Phase.LISTENING, _Phase.CLAIMING, _Phase.LOADING, _Phase.SERVING)
    },
}


class HoldingLife:
    """The phase of one model on one node."""

    def __init__(self) -> None:
        self.phase = HoldingPhase.IDLE

    def move(self, evidence: HoldingEvidence) -> None:
        """Go on to what ``evidence`` leads to.

        Raises:
            LocalProtocolError: The table has no such move.
        """
        following = HOLDING_TRANSITIONS.get((self.phase, evidence))
        if following is None:
            raise LocalProtocolError(
                f"{evidence.name} means nothing to a model that is {self.phase.name}"
            )
        self.phase = following
