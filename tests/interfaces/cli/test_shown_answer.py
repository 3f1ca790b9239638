"""What a person sees of an answer: each loss once, and nothing glued to its words."""

from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import ask_commands
from p2pnode.interfaces.cli.asking_options import asked_params
from p2pnode.interfaces.cli.shown_answer import ShownAnswer

LOST: dict[str, Any] = {
    "event": "broken",
    "names": ["garage"],
    "layers": [[10, 20]],
    "reason": "suspected",
    "wait": 5.0,
}


def token(text: str) -> dict[str, Any]:
    return {"event": "token", "text": text}


def test_who_is_asked_again_in_vain_is_not_lost_twice(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ShownAnswer({})
    shown.show(LOST)
    shown.show({**LOST, "reason": "did not answer"})
    assert capsys.readouterr().err.count("[lost garage [10, 20)") == 1
    shown.show({**LOST, "names": ["attic"]})
    shown.show({"event": "repaired", "seconds": 1.0, "instead": []})
    shown.show({**LOST, "reason": "suspected again"})
    said = capsys.readouterr().err
    assert "[lost attic" in said
    assert "suspected again" in said


@pytest.mark.parametrize(("text", "ends"), [("their", "their\n"), ("their\n", "their\n"), ("", "")])
def test_an_error_begins_a_line_of_its_own(
    text: str, ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        def call(self, method: str, params: object, hear: Any) -> None:
            hear(token(text))
            raise UserError("the node has ended")

    with pytest.raises(UserError):
        ask_commands._stream(Client(), {})  # type: ignore[arg-type]
    assert capsys.readouterr().out == ends


def test_a_note_in_the_middle_of_a_line_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ShownAnswer({})
    shown.show({"event": "waiting", "layers": [[0, 2]], "wait": 3.0})
    shown.show(token("and"))
    shown.show(LOST)
    assert capsys.readouterr().err.startswith("[nobody serves")
    shown.show(token("more"))
    shown.show(LOST)  # nothing new is said
    shown.break_line()
    assert capsys.readouterr().out == "more\n"


def test_the_wait_that_a_person_chose_holds_in_mid_answer_too() -> None:
    chosen = ask_commands.generate.make_context("generate", ["Why?", "--wait", "5"]).params
    asked = asked_params(chosen, is_fresh=False)
    assert (asked["wait"], asked["lost_wait"]) == (5.0, 5.0)
    chosen = ask_commands.generate.make_context("generate", ["Why?"]).params
    asked = asked_params(chosen, is_fresh=False)
    assert (asked["wait"], asked["lost_wait"]) == (20.0, None)


def test_a_system_prompt_is_none_of_the_turns_that_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    shown = ShownAnswer({"messages": [{"role": role, "content": "x"} for role in roles]})
    shown.show({"event": "history", "left_out": 4})
    assert "the oldest 2 turns left" in capsys.readouterr().err
