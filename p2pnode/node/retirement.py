"""Giving a model up: its sessions end, then nothing of it is served, and its engine is freed."""

from p2pnode.errors import UserError
from p2pnode.inference.phase import Phase
from p2pnode.node.events import UnloadRequested
from p2pnode.node.parts import NodeParts
from p2pnode.phrases import listed


class Retirement:
    """Of one node's models; until when each may stay is in its bundle."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    def begin(self, space: int, deadline: float, now: float) -> None:
        """Admit no session of a model any more; those under way end by ``deadline``.

        Asked again, it goes no later than before.

        Raises:
            UserError: This node has no such model.
        """
        parts = self._parts
        bundle = parts.serving.bundles.get(space)
        if bundle is None:
            named = listed(model.name for model in parts.models)
            raise UserError(
                "this node has no such model", hint=f"it has {named}" if named else "it has none"
            )
        if bundle.leave_by is not None:
            bundle.leave_by = min(deadline, bundle.leave_by)
            return
        bundle.leave_by = deadline
        parts.inference.retire(space, f"{bundle.model.name} is being unloaded")
        parts.say(f"unloads {bundle.model.name}")
        parts.serving.announce(now)

    def go_on(self, now: float) -> list[UnloadRequested]:
        """Forget those whose time is up, or whose last session has ended; return what to free."""
        gone = [
            space
            for space, bundle in self._parts.serving.bundles.items()
            if bundle.leave_by is not None and (now >= bundle.leave_by or not self._is_used(space))
        ]
        for space in gone:
            self._finish(space, now)
        return [UnloadRequested(space) for space in gone]

    def _is_used(self, space: int) -> bool:
        inference = self._parts.inference
        return any(stage.space == space for stage in inference.stages()) or any(
            one.space == space and one.phase is not Phase.ENDED for one in inference.generations()
        )

    def _finish(self, space: int, now: float) -> None:
        parts = self._parts
        name = parts.serving.bundles[space].model.name
        parts.inference.drop_model(space, f"{name} was unloaded", now)
        parts.serving.drop_model(space, now)
        parts.narration.forget(space)
        parts.say(f"has unloaded {name}")
