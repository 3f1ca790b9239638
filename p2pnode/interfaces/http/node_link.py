"""The node behind the API, over its control socket."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeAlias

from p2pnode.errors import UserError, first_in
from p2pnode.interfaces.http.errors import ApiError, of_user_error
from p2pnode.net.control_lines import Rendered
from p2pnode.net.control_stream import ControlStream, NodeGoneError

Body: TypeAlias = dict[str, Any]

LOOK_SECONDS: Final = 10.0
"""That a node has to say how it is. It takes milliseconds; a busy one some tenths."""

_MODEL_SECONDS: Final = 2.0
"""For which what the node said of its model is not asked for again."""

_KEPT_SECONDS: Final = 10.0
"""For which an answer may begin with what it said, while it is asked again beside that: the first
token need not wait for it."""

Tell: TypeAlias = Callable[[int, Body], Awaitable[None]]
"""Takes an event of an answer, by the answer's number."""


class NodeLink:
    """The way to one node, over its control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._model: Body | None = None
        self._model_at = -math.inf
        self._look: asyncio.Task[None] | None = None

    async def model(self) -> Body:
        """Return what the node says of its model, as of some seconds ago at most.

        Raises:
            ApiError: It has none, or is not there.
        """
        if self._model is None or self._age() > _MODEL_SECONDS:
            now = time.monotonic()
            self._model, self._model_at = await self.call("model"), now
        return self._model

    async def model_called(self, name: str) -> Body:
        """Return the model for an answer, which was asked for by ``name``.

        Raises:
            ApiError: It has none, or another, or is not there.
        """
        known = self._model if self._age() < _KEPT_SECONDS else None
        if known is not None and _is_called(name, known):
            if self._age() > _MODEL_SECONDS and self._look is None:
                self._look = asyncio.create_task(self._look_again())
            return known
        model = await self.model()
        if not _is_called(name, model):
            served = model["name"]
            there = f"there is: {served}" if served else "this node has no model"
            raise ApiError(
                404, f"no model {name[:100]!r} here; {there}", code="model_not_found", param="model"
            )
        return model

    def _age(self) -> float:
        return time.monotonic() - self._model_at

    async def _look_again(self) -> None:
        try:
            await self.model()
        except ApiError:
            self._model = None  # whoever asks next is told
        finally:
            self._look = None

    async def models(self) -> list[Body]:
        """Return the models that answer: one, or none.

        Raises:
            ApiError: The node is not there.
        """
        try:
            return [await self.model()]
        except ApiError as error:
            if error.code != "model_unusable":
                raise
            return []

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | Rendered | None = None,
        *,
        seconds: float | None = LOOK_SECONDS,
    ) -> Any:  # noqa: ANN401 -- JSON
        """Ask something that has no events; the answer has so many ``seconds``, None for any.

        Raises:
            ApiError: The node refused, is not there, or says nothing.
        """
        try:
            async with asyncio.timeout(seconds), ControlStream.open(self.path) as stream:
                return await stream.call(method, params)
        except UserError as error:
            raise of_user_error(error) from error
        except TimeoutError as error:
            silent = NodeGoneError(f"the node did not answer for {seconds:g} s", hint="ask again")
            raise of_user_error(silent) from error

    async def answers(self, questions: Sequence[Rendered], tell: Tell) -> list[Body]:
        """Ask all ``questions`` at once; return what came of each. To cancel this cancels them.

        Raises:
            ApiError: One failed, and so all.
        """

        async def one(number: int, question: Rendered) -> Body:
            async with ControlStream.open(self.path) as stream:
                async with aclosing(stream.events("generate", question)) as events:
                    async for event in events:
                        await tell(number, event)
                facts: Body = stream.result
                return facts

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(one(number, question))
                    for number, question in enumerate(questions)
                ]
        except* UserError as failed:
            if failed.subgroup(NodeGoneError) is not None:
                self._model = None  # who comes next may have another
            error = first_in(failed, UserError) or UserError(str(failed))
            raise of_user_error(error) from failed
        return [task.result() for task in tasks]


def _is_called(name: str, model: Body) -> bool:
    served = str(model["name"])
    return bool(served) and name.casefold().removesuffix(":latest") == served.casefold()
