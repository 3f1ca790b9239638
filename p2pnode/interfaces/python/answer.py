"""An answer of a node in this process, as it comes."""

from typing import Self

from p2pnode.errors import UserError
from p2pnode.interfaces.python.events import Answer, Event
from p2pnode.interfaces.python.outcome import Outcome
from p2pnode.interfaces.python.parsing import answer_of, event_of
from p2pnode.node.answering.service import TextAnswer


class AsyncRunningAnswer(Outcome):
    """An answer as it comes: an iterator of its events, with its :attr:`result` at the end.

    For instance::

        async with node.generate("Why is the sky blue?") as answer:
            async for event in answer:
                print(event.text, end="")

    To leave its block, or to cancel its reader, cancels what is still under way. Without a block it
    is to be read to the end, as :meth:`read` does.
    """

    def __init__(self, answer: TextAnswer) -> None:
        self._answer = answer
        self._events = answer.events()
        self._is_spent = False

    async def read(self) -> Answer:
        """Read to the end, and return what came of it; raises as :meth:`__anext__`."""
        async for _ in self:
            pass
        return self.result

    async def aclose(self) -> None:
        """Cancel it, unless it is over."""
        self._is_spent = True
        await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            UserError: The answer failed (a GenerationError), too many wait (a BusyError), the
                prompt does not fit (a LengthError), or this was closed.
        """
        if self._result is not None:
            raise StopAsyncIteration
        if self._is_spent:
            raise UserError("the answer was closed, or has failed, before its end")
        try:
            return await self._next()
        except StopAsyncIteration:
            raise
        except BaseException:
            self._is_spent = True
            raise

    async def _next(self) -> Event:
        async for body in self._events:
            if (event := event_of(body)) is not None:
                return event
        self._result = answer_of(self._answer.facts())
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
