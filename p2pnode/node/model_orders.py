"""What faces order of a running node's models: one more, or one less."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from p2pnode.errors import BusyError, ModelError, UserError
from p2pnode.node.model_views import IDLE, LOADING, UNLOADING
from p2pnode.node.settings import ModelChoice
from p2pnode.node.snapshot import ModelView, NodeSnapshot

if TYPE_CHECKING:
    from p2pnode.node.node import Node
    from p2pnode.node.own_model import OwnModel

Tell: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]

_GLANCE: Final = 0.1  # seconds between two looks at how far a model is
_MOST_LAYER: Final = 1 << 16
_UNDER_WAY: Final = ("listening", "claiming", LOADING)
_TAKES_NOTHING: Final = ("resting", "draining")


class ModelOrders:
    """Those of one node; they come one after the other, for each changes what the next may do."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._turn = trio.Lock()

    async def load(self, choice: ModelChoice, tell: Tell) -> dict[str, Any]:
        """Hold one more model, until it is served or cannot be; return what it is.

        ``tell`` hears ``hashing`` with its part, and each ``state`` with its layers and reason.

        Raises:
            UserError: It cannot be read, does not fit beside the others, or cannot be loaded: then
                the others are as they were.
        """
        node = self._node
        async with self._taken():
            one, is_new = await self._begun(choice, tell)
            if not is_new and choice.layers not in (None, one.choice.layers):
                raise ModelError(
                    f"{one.info.name} is here already, and its layers stay as they are",
                    hint=f"p2pnode models unload {one.info.name} first",
                )
            view = await self._until_settled(one.space, tell)
        if view is None:
            raise ModelError(f"{one.info.name} was unloaded meanwhile")
        if view.state == UNLOADING:
            raise ModelError(f"{view.name} is being unloaded", hint="load it again once it is gone")
        if is_new and node.settings.hold and view.state == IDLE:
            node.call(lambda core, now: core.drop_model(one.space, now, drain=0.0))
            await one.gone.wait()
            others = ", ".join(other.name for other in node.snapshot().models)
            stays = f"; {others} stays as it was" if others else ""
            raise ModelError(f"{view.name} is not held: {view.reason}{stays}")
        return {**_body(view), "is_new": is_new}

    async def unload(self, name: str, tell: Tell, *, at_once: bool = False) -> dict[str, Any]:
        """Hold and ask a model no more; return what it was.

        Its sessions have as long as at a node's end: then those of others go on elsewhere.

        Raises:
            UserError: There is none of that name.
        """
        node = self._node
        if not name:
            raise UserError("name the model to unload", hint="p2pnode models lists them")
        one = node.models.meant(name)
        before = _view_of(node.snapshot(), one.space)
        drain = 0.0 if at_once else None
        node.call(lambda core, now: core.drop_model(one.space, now, drain=drain))
        await tell({"event": "state", "state": UNLOADING})
        await one.gone.wait()
        return {"name": one.info.name} if before is None else _body(before)

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[None]:
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock as error:
            raise BusyError(
                "another model is being loaded here", hint="try again when it is"
            ) from error
        try:
            yield
        finally:
            self._turn.release()

    async def _begun(self, choice: ModelChoice, tell: Tell) -> tuple[OwnModel, bool]:
        """Read a model and tell the core of it; return it, and whether it was not here before."""
        hashing, failed = _Hashing(tell), None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hashing.run)
            try:
                return await self._taken_up(choice, hashing.heard)
            except UserError as error:  # as it is, and not as one of a group
                failed = error
            finally:
                nursery.cancel_scope.cancel()
        raise failed

    async def _taken_up(
        self, choice: ModelChoice, heard: Callable[[float], None]
    ) -> tuple[OwnModel, bool]:
        one = await self._node.open(choice, heard)
        if one.is_taken_up:
            return one, False
        try:
            self._node.take_up(one)
        except UserError:
            self._node.models.remove(one)
            await one.close()
            raise
        return one, True

    async def _until_settled(self, space: int, tell: Tell) -> ModelView | None:
        """Wait until a model is served, or is not to be; None once it is gone.

        A node that rests or leaves takes on nothing: it is not waited for.
        """
        told = None
        while (view := _view_of(picture := self._node.snapshot(), space)) is not None:
            if (told_now := (view.state, view.layers)) != told:
                told = told_now
                await tell({"event": "state", **_body(view)})
            if view.state not in _UNDER_WAY or picture.state in _TAKES_NOTHING:
                break
            await trio.sleep(_GLANCE)
        return view


def choice_of(params: Mapping[str, Any]) -> ModelChoice:
    """Read which model is to be loaded: its ``path``, what it is ``called``, and its ``layers``.

    Raises:
        UserError: They are none.
    """
    path, called, layers = params.get("path"), params.get("called", ""), params.get("layers")
    if not isinstance(path, str) or not path.startswith("/") or not isinstance(called, str):
        raise UserError("path must be the whole path of a model")
    if layers is None:
        return ModelChoice(Path(path), None, called)
    is_run = isinstance(layers, list) and len(layers) == 2
    if not is_run or not all(type(one) is int and 0 <= one < _MOST_LAYER for one in layers):
        raise UserError("layers must be the first, and one past the last")
    if layers[0] >= layers[1]:
        raise UserError(f"not a run of layers: {layers[0]}:{layers[1]}")
    return ModelChoice(Path(path), range(*layers), called)


def _view_of(picture: NodeSnapshot, space: int) -> ModelView | None:
    return next((one for one in picture.models if one.space_hash32 == space), None)


def _body(view: ModelView) -> dict[str, Any]:
    return {
        "name": view.name,
        "root": view.root,
        "state": view.state,
        "layers": list(view.layers),
        "n_layers": view.n_layers,
        "reason": view.reason,
    }


class _Hashing:
    """Says now and then how much a thread has hashed."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._part = 0.0

    def heard(self, part: float) -> None:
        """Take the part that is hashed; in whichever thread."""
        self._part = part

    async def run(self) -> None:
        """Tell it until cancelled."""
        told = 0.0
        while True:
            await trio.sleep(_GLANCE)
            if self._part > told:
                told = self._part
                await self._tell({"event": "hashing", "part": round(told, 3)})
