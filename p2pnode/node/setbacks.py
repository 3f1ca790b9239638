"""What a node does when it cannot go on serving its layers: it counts it, says so, offers less."""

from p2pnode.inference.work import WorkFailed, WorkResult, parts_of
from p2pnode.node.parts import NodeParts


class Setbacks:
    """One node's: its model's file, its engine or its memory is not what it was."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    def model_lost(self, space: int, reason: str, now: float) -> None:
        """The model's file no longer holds what was hashed: leave its layers."""
        parts = self._parts
        parts.counters["model file changed: its layers left"] += 1
        parts.say(f"no layers{self._of(space)} are served any more: {reason}")
        parts.serving.model_lost(space, reason, now)

    def model_restored(self, space: int, now: float) -> None:
        """The model's file holds again what was hashed: take on layers as at the start."""
        self._parts.say(f"the model file{self._of(space)} is again the one that was hashed")
        self._parts.serving.model_restored(space, now)

    def load_failed(self, space: int, reason: str, now: float) -> None:
        """The layers that were to be served cannot be loaded."""
        again = self._parts.serving.load_failed(space, reason, now)
        later = "" if again is None else f"; tries again in {again:.0f} s"
        self._parts.say(f"cannot serve{self._named(space)}: {reason}{later}")

    def look_at(self, space: int, result: WorkResult, now: float) -> None:
        """See whether anything of what was computed failed; a step fails once, at the worst."""
        failed = [one for one in parts_of(result) if isinstance(one, WorkFailed)]
        if failed:
            self.work_failed(space, max(failed, key=_gravity), now)

    def work_failed(self, space: int, failure: WorkFailed, now: float) -> None:
        """Offer less where memory ran out, and nothing of a model whose engine is gone."""
        parts = self._parts
        bundle = parts.serving.bundles.get(space)
        if parts.life.is_leaving or bundle is None or not bundle.layers:
            return
        if failure.is_memory_short:
            parts.note(f"memory ran out, less of it is offered for a while: {failure.reason}")
            parts.serving.memory_ran_out(now)
        elif failure.is_engine_gone:
            parts.counters["the engine failed: its layers left"] += 1
            again = parts.serving.engine_lost(space, failure.reason, now)
            parts.inference.give_up("its engine failed", space)
            parts.say(
                f"no layers{self._of(space)} are served now, the engine failed: {failure.reason}; "
                f"tries again in {again:.0f} s"
            )

    def _named(self, space: int) -> str:
        """Return the model's name to say, where the node has several."""
        bundles = self._parts.serving.bundles
        return f" {bundles[space].model.name}" if len(bundles) > 1 else ""

    def _of(self, space: int) -> str:
        named = self._named(space)
        return named and f" of{named}"


def _gravity(failure: WorkFailed) -> int:
    return 2 * failure.is_engine_gone + failure.is_memory_short
