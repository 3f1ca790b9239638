"""How answers are made, by name: as the command line reads it."""

from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.chat.answer_settings import OPTIONS, AnswerSettings
from p2pnode.interfaces.cli.ask_commands import chat
from p2pnode.interfaces.cli.asking_options import asked_params
from p2pnode.node.answering.question import Question


@pytest.fixture
def settings() -> AnswerSettings:
    with chat.make_context("chat", ["--temperature", "0.5"]) as context:
        return AnswerSettings(context.params)


def asked(settings: AnswerSettings) -> dict[str, Any]:
    return asked_params(settings.chosen, is_fresh=False)


def test_each_setting_is_taken_as_the_option_is(settings: AnswerSettings) -> None:
    assert settings.change("temperature").split() == ["temperature", "0.5"]
    for typed in (
        "--top_p 0.9",
        "max-tokens 7",
        "json-mode on",
        'stop "a b" \\\\n',
        "prefer attic",
    ):
        settings.change(typed)
    told = asked(settings)
    assert (told["top_p"], told["max_tokens"], told["json_mode"]) == (0.9, 7, True)
    assert (told["stop"], told["prefer"]) == (["a b", "\n"], ["attic"])
    assert Question.of({"prompt": "x", **told}).stop == ("a b", "\n")
    for name in OPTIONS:
        settings.change(f"{name} default")
    assert asked(settings)["temperature"] == 0.0
    assert len(settings.lines()) == len(OPTIONS)


@pytest.mark.parametrize(
    ("typed", "words", "hint"),
    [
        ("temperaturee 1", "there is no setting temperaturee", "/set temperature"),
        ("zzz 1", "there is no setting zzz", "/set lists them"),
        ("temperature nan", "not a number", "/set temperature default"),
        ("max-tokens 0", "not in the range", "/set max-tokens default"),
        ("json-mode maybe", "on or off", "/set json-mode on"),
        ("stop 'open", "quote is not closed", ""),
        ("stop ''", "is empty", ""),
        ("schema {", "not JSON", ""),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    settings: AnswerSettings, typed: str, words: str, hint: str
) -> None:
    before = dict(settings.chosen)
    with pytest.raises(UserError, match=words) as caught:
        settings.change(typed)
    assert hint in caught.value.hint
    assert settings.chosen == before


def test_of_two_forms_of_an_answer_none_is_ignored(settings: AnswerSettings) -> None:
    settings.change('schema {"type":"object"}')
    with pytest.raises(UserError, match="do not go together"):
        settings.change("json-mode on")
