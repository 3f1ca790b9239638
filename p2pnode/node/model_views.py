"""Draws what a snapshot shows of each model that a node has."""

from collections.abc import Mapping
from typing import Final

from p2pnode.inference.phase import Phase
from p2pnode.node.bundle import Bundle
from p2pnode.node.core import NodeCore
from p2pnode.node.snapshot import ModelView

SERVING: Final = "serving"
LOADING: Final = "loading"
IDLE: Final = "idle"
UNLOADING: Final = "unloading"


def model_views(core: NodeCore, called: Mapping[int, str]) -> tuple[ModelView, ...]:
    """Return what there is to say of each, the first one first; ``called`` names them by space."""
    sessions, answers = _counts(core)
    return tuple(
        ModelView(
            name=called.get(space, bundle.model.name),
            root=bundle.model.data_sig,
            space_hash32=space,
            n_layers=bundle.model.n_layers,
            layers=(bundle.layers.start, bundle.layers.stop),
            state=_state(bundle),
            reason=bundle.holdings.reason,
            decode_us=bundle.offer.decode_us,
            numerics="" if bundle.offer.engine is None else bundle.offer.engine.numerics,
            sessions=sessions.get(space, 0),
            answers=answers.get(space, 0),
            missing_layers=tuple(
                (run.start, run.stop) for run in core.planner.missing(bundle.model)
            ),
        )
        for space, bundle in core.serving.bundles.items()
    )


def _state(bundle: Bundle) -> str:
    if bundle.leave_by is not None:
        return UNLOADING
    return SERVING if bundle.layers else bundle.life.phase.name.lower()


def _counts(core: NodeCore) -> tuple[dict[int, int], dict[int, int]]:
    """Return the sessions of others, and our answers under way, by space."""
    sessions: dict[int, int] = {}
    for stage in core.inference.stages():
        sessions[stage.space] = sessions.get(stage.space, 0) + 1
    answers: dict[int, int] = {}
    for one in core.inference.generations():
        if one.phase is not Phase.ENDED:
            answers[one.space] = answers.get(one.space, 0) + 1
    return sessions, answers
