"""The oldest turns leave a conversation that outgrew the context, and no others."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.text.history import Message, fit, room_for_prompt

SYSTEM = {"role": "system", "content": "be brief"}


def conversation(exchanges: int) -> list[dict[str, Any]]:
    """Return as many questions and answers, and a last question; each takes one position."""
    turns = [
        {"role": role, "content": f"{role} {number}"}
        for number in range(exchanges)
        for role in ("user", "assistant")
    ]
    return [*turns, {"role": "user", "content": "last"}]


def fitted(messages: Sequence[Message], room: int) -> tuple[list[str], int]:
    kept: list[Sequence[Message]] = []

    def prompt_of(some: Sequence[Message]) -> list[int]:
        kept.append(some)
        return list(range(len(some)))

    prompt, left = fit(messages, room, prompt_of)
    final = next(some for some in reversed(kept) if len(some) == len(prompt))
    assert len(kept) < 12
    return [str(one["content"]) for one in final], left


def test_what_fits_stays_whole() -> None:
    assert fitted(conversation(2), 5)[1] == 0


def test_the_oldest_leave_up_to_a_question() -> None:
    words, left = fitted(conversation(3), 6)
    assert left == 2
    assert words[0] == "user 1"


def test_what_stands_at_the_head_stays() -> None:
    words, left = fitted([SYSTEM, *conversation(3)], 6)
    assert (words[:2], left) == (["be brief", "user 1"], 2)
    developer = {"role": "developer", "content": "d"}
    assert fitted([SYSTEM, developer, *conversation(3)], 6)[0][:3] == ["be brief", "d", "user 2"]


def test_the_last_question_stays_though_it_does_not_fit() -> None:
    assert fitted([SYSTEM, *conversation(9)], 1) == (["be brief", "last"], 18)
    assert fitted(conversation(0), 0) == (["last"], 0)
    assert fitted([SYSTEM], 0) == (["be brief"], 0)


@given(st.integers(0, 40), st.integers(1, 90), st.booleans())
def test_as_much_stays_as_fits(exchanges: int, room: int, system: bool) -> None:
    messages = [SYSTEM, *conversation(exchanges)] if system else conversation(exchanges)
    words, left = fitted(messages, room)
    assert words[-1] == "last"
    assert len(words) + left == len(messages)
    assert len(words) <= max(room, 1 + system)
    assert not left or len(words) + 2 > room


@pytest.mark.parametrize(
    ("context", "asked", "room"), [(8192, 256, 7936), (8192, 8000, 6144), (4, 9, 3), (2, 1, 1)]
)
def test_an_answer_has_room(context: int, asked: int, room: int) -> None:
    assert room_for_prompt(context, asked) == room
