"""A conversation as it goes on: what was asked last, and the way back."""

from typing import Final

from p2pnode.errors import UserError
from p2pnode.interfaces.chat.conversation import Conversation, Turn

_MOST_STEPS: Final = 200  # back; each shares what it says with the next


class Talk:
    """The conversation now, the ones before it, and a question that still has no answer.

    Attributes:
        now: What was said and answered.
        tries: How often the question that is asked next was answered before: a draw is to be
            another one then.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.now = conversation
        self.tries = 0
        self._before: list[Conversation] = []
        self._failed: str | None = None

    def change(self, conversation: Conversation) -> None:
        """Go on with another conversation; :meth:`undo` is the way back."""
        self._before = [*self._before[1 - _MOST_STEPS :], self.now]
        self.now, self._failed, self.tries = conversation, None, 0

    def answered(self, turn: Turn, left_out: int = 0) -> None:
        """Take an answer, or what came of one; ``left_out`` messages found no room."""
        self._before = [*self._before[1 - _MOST_STEPS :], self.now]
        self.now, self._failed = self.now.without(left_out).with_turn(turn), None

    def failed(self, question: str) -> None:
        """Note that nothing came of a question: it is as if it had not been said."""
        self._failed = question

    def asks_anew(self) -> None:
        """Begin a question of its own: the tries of the one before are none of its."""
        self.tries = 0

    def retried(self) -> str:
        """Take back the last answer and return its question, to be asked again.

        Raises:
            UserError: Nothing was asked.
        """
        if self._failed is not None:
            return self._failed
        if not self.now.turns:
            raise UserError("nothing was asked yet", hint="say something first")
        question = self.now.turns[-1].question
        tries = self.tries + 1
        self.change(Conversation(self.now.system, self.now.turns[:-1]))
        self.tries = tries
        return question

    def undo(self) -> Turn | None:
        """Go one step back; return the turn that this takes back, if it is one.

        Raises:
            UserError: There is none.
        """
        if not self._before:
            raise UserError("there is nothing to take back")
        gone, self.now = self.now, self._before.pop()
        self._failed, self.tries = None, 0
        more = len(gone.turns) == len(self.now.turns) + 1
        return gone.turns[-1] if more and gone.turns[:-1] == self.now.turns else None
