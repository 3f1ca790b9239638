"""What a node does when it cannot go on serving its layers: it counts it, says so, offers less."""

from p2pnode.inference.work import WorkFailed
from p2pnode.node.parts import NodeParts


class Setbacks:
    """One node's: its model's file, its engine or its memory is not what it was."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    def model_lost(self, reason: str, now: float) -> None:
        """The model's file no longer holds what was hashed: leave its layers."""
        parts = self._parts
        parts.counters["model file changed: its layers left"] += 1
        parts.say(f"no layers are served any more: {reason}")
        parts.serving.model_lost(reason, now)

    def model_restored(self, now: float) -> None:
        """The model's file holds again what was hashed: take on layers as at the start."""
        self._parts.say("the model file is again the one that was hashed")
        self._parts.serving.model_restored(now)

    def load_failed(self, reason: str, now: float) -> None:
        """The layers that were to be served cannot be loaded."""
        again = self._parts.serving.load_failed(reason, now)
        later = "" if again is None else f"; tries again in {again:.0f} s"
        self._parts.say(f"cannot serve: {reason}{later}")

    def work_failed(self, failure: WorkFailed, now: float) -> None:
        """Offer less where memory ran out, and nothing where the engine is gone."""
        parts = self._parts
        if parts.life.is_leaving or not parts.serving.layers:
            return
        if failure.is_memory_short:
            parts.note(f"memory ran out, less of it is offered for a while: {failure.reason}")
            parts.serving.memory_ran_out(now)
        elif failure.is_engine_gone:
            parts.counters["the engine failed: its layers left"] += 1
            again = parts.serving.engine_lost(failure.reason, now)
            parts.inference.give_up("its engine failed")
            parts.say(
                f"no layers are served now, the engine failed: {failure.reason}; "
                f"tries again in {again:.0f} s"
            )
