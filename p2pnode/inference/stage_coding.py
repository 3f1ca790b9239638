"""How the stages of a node code what they send on: their orders' terms, and what the links say."""

from p2pnode.engine.base import ModelInfo
from p2pnode.inference.activations import Batch
from p2pnode.inference.messages import Open
from p2pnode.inference.tensor_policy import EdgeKey, Links, PolicyConfig, TensorPolicy
from p2pnode.inference.terms import Terms, fingerprint, mask_of
from p2pnode.inference.work import Computed, Recipe
from p2pnode.wire.calibration import Calibration, CalibrationSet
from p2pnode.wire.states import Rung


class StageCoding:
    """Chooses codings before a job, and learns from what came of them after it.

    Attributes:
        policy: The codings of all edges that leave here.
    """

    def __init__(self, config: PolicyConfig, links: Links | None) -> None:
        self.policy = TensorPolicy(config, links)
        self._calibrations: dict[int, CalibrationSet] = {}
        self._fingerprints: dict[int, int] = {}  # of these; to reckon one takes a while

    def use(self, space: int, calibrations: CalibrationSet | None) -> None:
        """Code the states of a model by these where all of a chain has them."""
        self._calibrations.pop(space, None)
        self._fingerprints.pop(space, None)
        if calibrations is not None:
            self._calibrations[space] = calibrations
            self._fingerprints[space] = fingerprint(calibrations)

    def lacks(self, terms: Terms | None, space: int) -> bool:
        """Whether ``terms`` name a calibration that is not here."""
        return terms is not None and terms.calibration not in {0, self._fingerprints.get(space, 0)}

    def recipe(
        self, order: Open, batches: tuple[Batch, ...], model: ModelInfo, codings: int
    ) -> Recipe | None:
        """Say how to code what ``batches`` become; None for the order's type and nothing more.

        Args:
            order: Of the stage.
            batches: What it is about to compute.
            model: Whose states they are.
            codings: Mask of the codings that left it before.
        """
        terms = order.terms
        if terms is None or order.sampling is not None or len(terms.rungs) < 2:
            return None
        known = self.calibration(terms, order.layers.stop, model.space_hash32)
        rungs: tuple[tuple[Rung, ...], ...] = ((Rung.F32,),) * len(batches)
        if order.out_dtype != "f32":
            rungs = tuple(
                self.policy.choose(
                    _edge(order, model.space_hash32, batch),
                    terms,
                    batch.rows,
                    2 * model.d_model,
                    calibrated=known is not None,
                )
                for batch in batches
            )
        return Recipe(rungs, terms.kl, known, codings)

    def calibration(self, terms: Terms | None, cut: int, space: int) -> Calibration | None:
        """Return what all of the session's chain knows of the states that enter layer ``cut``."""
        if terms is None or terms.calibration != self._fingerprints.get(space):
            return None
        return self._calibrations[space].at(cut)

    def note(self, order: Open, space: int, result: Computed) -> int:
        """Learn from a job done by a recipe; return the mask of the codings it used."""
        mask = 0
        seconds = result.compute_us / 1e6 / len(result.batches)
        for batch, coded in zip(result.batches, result.coded, strict=True):
            mask |= mask_of(coded.rung)
            if order.terms is not None and coded.rung is not Rung.F32:
                self.policy.sent(
                    _edge(order, space, batch), order.terms, coded, seconds, batch.rows
                )
        return mask


def _edge(order: Open, space: int, batch: Batch) -> EdgeKey:
    return EdgeKey(order.downstream.peer, order.layers.stop, batch.rows > 1, space)
