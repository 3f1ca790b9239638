"""What came of an answer, which is known once its events are read."""

from p2pnode.errors import UserError
from p2pnode.interfaces.python.events import Answer


class Outcome:
    """An answer's result, for the iterators of its events to set at their end."""

    _result: Answer | None = None

    @property
    def result(self) -> Answer:
        """What came of it.

        Raises:
            UserError: It is not over.
        """
        if self._result is None:
            raise UserError(
                "the answer is not over", hint="read its events to the end first, or read()"
            )
        return self._result
