"""What was said so far, as it is asked, kept in a file and read from one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from p2pnode.errors import UserError

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of a conversation in a file: as much as a node reads at once."""
_MOST_MESSAGES: Final = 20_000
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; ``is_cut`` where that was stopped or broke off."""

    question: str
    answer: str
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system prompt, empty for none, and the turns in order."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def asking(self, question: str) -> list[dict[str, str]]:
        """Return the messages that ask ``question`` after all that was said."""
        return [*map(_bare, self._messages()), {"role": "user", "content": question}]

    def with_turn(self, turn: Turn) -> "Conversation":
        return replace(self, turns=(*self.turns, turn))

    def without(self, left_out: int) -> "Conversation":
        """Return it without its oldest messages, which the model's context had no room for.

        A node counts from after the system prompt, and cuts before a question.
        """
        return replace(self, turns=self.turns[left_out // 2 :])

    def to_json(self) -> str:
        """Return it as a file keeps it: the messages that an API takes, and what was cut."""
        body = {"p2pnode_chat": _VERSION, "messages": self._messages()}
        return json.dumps(body, ensure_ascii=False, indent=1) + "\n"

    def _messages(self) -> list[dict[str, Any]]:
        head: list[dict[str, Any]] = []
        if self.system:
            head = [{"role": "system", "content": self.system}]
        for turn in self.turns:
            head.append({"role": "user", "content": turn.question})
            answer = {"role": "assistant", "content": turn.answer}
            head.append({**answer, "cut": True} if turn.is_cut else answer)
        return head


def conversation_of(text: str) -> Conversation:
    """Read what a file has: an object with ``messages``, or a list of them.

    Raises:
        UserError: It is no conversation; nothing else ever.
    """
    try:
        body = json.loads(text)
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError("it has halves of characters") from error
    except (ValueError, RecursionError) as error:
        raise UserError("it is not JSON") from error
    if isinstance(body, dict) and body.get("p2pnode_chat", _VERSION) != _VERSION:
        raise UserError("it is of a newer version", hint="install the newer p2pnode")
    messages = body.get("messages") if isinstance(body, dict) else body
    if not isinstance(messages, list) or len(messages) > _MOST_MESSAGES:
        raise UserError(
            f"it has no list of at most {_MOST_MESSAGES:,} messages",
            hint='{"messages": [{"role": "user", "content": "..."}, ...]}, as /save writes it',
        )
    return _of_messages([_checked(number, one) for number, one in enumerate(messages, 1)])


def _of_messages(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Pair questions with answers.

    Raises:
        UserError: They do not take turns.
    """
    has_system = bool(messages) and messages[0]["role"] == "system"
    rest = messages[1:] if has_system else messages
    for number, message in enumerate(rest):
        wanted = ("user", "assistant")[number % 2]
        if message["role"] != wanted:
            place = number + 1 + has_system
            raise UserError(
                f"message {place} is of {message['role']}, where one of {wanted} belongs"
            )
    if len(rest) % 2:
        raise UserError("its last question has no answer", hint="take that message out of the file")
    turns = [
        Turn(asked["content"], answer["content"], answer.get("cut") is True)
        for asked, answer in zip(rest[::2], rest[1::2], strict=True)
    ]
    return Conversation(messages[0]["content"] if has_system else "", tuple(turns))


def _checked(number: int, message: object) -> Mapping[str, Any]:
    """Return a message that has a role and words.

    Raises:
        UserError: It has not.
    """
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        raise UserError(f"message {number} has no content that is text")
    if message.get("role") not in {"system", "user", "assistant"}:
        raise UserError(f"message {number} is of neither system, user nor assistant")
    if _has_half_pairs(message["content"]):
        raise UserError(f"message {number} has halves of characters")
    return message


def _has_half_pairs(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no text has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _bare(message: Mapping[str, Any]) -> dict[str, str]:
    return {"role": message["role"], "content": message["content"]}
