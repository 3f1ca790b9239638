"""The node behind the API, over its control socket."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeAlias

from p2pnode.errors import ModelError, UnknownModelError, UserError, first_in
from p2pnode.interfaces.http.errors import ApiError, of_user_error
from p2pnode.net.control_lines import Rendered, render
from p2pnode.net.control_stream import ControlStream, NodeGoneError
from p2pnode.node.model_names import ModelName, meant

Body: TypeAlias = dict[str, Any]

LOOK_SECONDS: Final = 10.0
"""That a node has to say how it is. It takes milliseconds; a busy one some tenths."""

_MODELS_SECONDS: Final = 2.0
"""For which what the node said of its models is not asked for again."""

_KEPT_SECONDS: Final = 10.0
"""For which an answer may begin with what it said, while it is asked again beside that: the first
token need not wait for it."""

Tell: TypeAlias = Callable[[int, Body], Awaitable[None]]
"""Takes an event of an answer, by the answer's number."""


class NodeLink:
    """The way to one node, over its control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._models: list[Body] | None = None
        self._asked_at = -math.inf
        self._look: asyncio.Task[None] | None = None

    async def models(self) -> list[Body]:
        """Return what the node says of its models, as of some seconds ago at most.

        ``name`` is what each is called, with its root where two share a name.

        Raises:
            ApiError: The node is not there.
        """
        return [one for one in await self._all() if not one.get("problem")]

    async def model_called(self, name: str) -> Body:
        """Return the model for an answer, which was asked for by ``name``.

        Raises:
            ApiError: There is none of that name, several, or no node; or its file is broken.
        """
        known = self._found(name) if self._age() < _KEPT_SECONDS else None
        if known is not None:
            if self._age() > _MODELS_SECONDS and self._look is None:
                self._look = asyncio.create_task(self._look_again())
            return known
        models = await self._all()
        try:
            model = models[meant(name, _names(models))]
        except UnknownModelError as error:
            raise ApiError(404, f"{error}", code="model_not_found", param="model") from error
        if problem := model.get("problem"):
            raise of_user_error(ModelError(problem))
        return model

    def _found(self, name: str) -> Body | None:
        """Return the model of a name where it is known to be there."""
        models = self._models or []
        try:
            model = models[meant(name, _names(models))]
        except UnknownModelError:
            return None
        return None if model.get("problem") else model

    async def _all(self) -> list[Body]:
        if self._models is None or self._age() > _MODELS_SECONDS:
            now = time.monotonic()
            told = (await self.call("models"))["models"]
            self._models = [{**one, "plain": one["name"], "name": one["label"]} for one in told]
            self._asked_at = now
        return self._models

    def _age(self) -> float:
        return time.monotonic() - self._asked_at

    async def _look_again(self) -> None:
        try:
            await self._all()
        except ApiError:
            self._models = None  # whoever asks next is told
        finally:
            self._look = None

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
                self._models = None  # who comes next may have others
            error = first_in(failed, UserError) or UserError(str(failed))
            raise of_user_error(error) from failed
        return [task.result() for task in tasks]


def asked_of(model: Body, question: Body) -> Rendered:
    """Return a question as a node takes it that is for one of its models, whatever it comes by."""
    return render({**question, "model": f"{model['plain']}@{model['root']}"})


def _names(models: Sequence[Body]) -> list[ModelName]:
    return [ModelName(one["plain"], one["root"], tuple(one["also"])) for one in models]
