"""Whatever is said, no terminal code passes; and what a person asks is looked at first."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli import ask_commands
from p2pnode.interfaces.cli.ask_commands import chat, generate
from p2pnode.interfaces.cli.output import complain, note, say, say_json, table

NASTY = "a\x1b]0;owned\x07\x7f\x9b2J\u00a0b\ud800"


@pytest.mark.parametrize(
    "tell",
    [
        say,
        note,
        say_json,
        lambda text: say("x", mark=text, colour="green"),
        lambda text: say(text, mark="x", colour="red"),
        lambda text: complain(UserError(text, hint=text)),
        lambda text: say(table(("A", "B"), [(text, "\n" + text)])),
    ],
)
def test_nothing_that_is_said_steers_a_terminal(
    tell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(NASTY)
    written = "".join(capsys.readouterr())
    for code in ("\x1b]", "\x07", "\x7f", "\x9b", "\ud800"):
        assert code not in written
    assert "\u00a0b" in written


def test_a_cell_is_one_line() -> None:
    assert len(table(("A",), [("a\nb",), ("c\u2028d",)]).split("\n")) == 3


def answered(text: str, left_out: int = 0) -> dict[str, Any]:
    activations = {"codings": ["f32"], "kl_per_token": 0.0}
    body = {"text": text, "token_ids": [1], "plan": None, "tokens_per_s": 1.0, "finish": "stop"}
    return {**body, "activations": activations, "left_out": left_out}


class Host:
    """Takes the place of a node: keeps what it is asked, and answers from a list."""

    is_fresh = False
    model = ""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    @contextmanager
    def client(self) -> Iterator["Host"]:
        yield self

    def call(self, method: str, params: dict[str, Any], hear: Any) -> dict[str, Any]:
        self.asked.append(json.loads(json.dumps(params)))
        answer = self.answers[len(self.asked) - 1]
        if hear is not None:
            if answer["left_out"]:
                hear({"event": "history", "left_out": answer["left_out"]})
            hear({"event": "token", "text": answer["text"]})
        return answer


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host([answered("one"), answered("two", 2), answered("three")])

    @contextmanager
    def some_node(*_: object, **__: object) -> Iterator[Host]:
        yield made

    monkeypatch.setattr(ask_commands, "some_node", some_node)
    return made


@pytest.mark.parametrize(
    ("words", "stdin"),
    [(("",), b""), ((" \n ",), b""), (("-",), b""), (("-",), b"\xef\xbb\xbf \n")],
)
def test_an_empty_prompt_is_a_usage_error_in_one_line(
    host: Host, words: tuple[str, ...], stdin: bytes
) -> None:
    done = CliRunner().invoke(generate, words, input=io.BytesIO(stdin))
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == "the prompt is empty"
    assert done.output == ""
    assert not host.asked


def test_a_byte_order_mark_is_no_part_of_a_prompt(host: Host) -> None:
    stdin = io.BytesIO(b"\xef\xbb\xbfWhy?\xef\xbb\xbf")
    assert CliRunner().invoke(generate, ["-"], input=stdin).exit_code == 0
    assert host.asked[0]["prompt"] == "Why?\ufeff"


def test_what_a_model_writes_steers_no_terminal(host: Host) -> None:
    host.answers = [answered(NASTY)] * 2
    for options in ((), ("--json",)):
        written = CliRunner().invoke(generate, ["Why?", *options]).stdout
        assert not any(code in written for code in "\x1b\x07\x7f\x9b")
        assert "\u00a0b" in written


def test_turns_that_left_a_conversation_are_told_once(host: Host) -> None:
    done = CliRunner().invoke(chat, ["--lines"], input="first\nsecond\nthird\n")
    assert done.exit_code == 0, done.exception
    assert done.output.count("the oldest 1 turn left the conversation") == 1
    contents = [[one["content"] for one in asked["messages"]] for asked in host.asked]
    assert contents == [["first"], ["first", "one", "second"], ["second", "two", "third"]]


def test_an_output_that_has_few_letters_gets_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("d\u00e9j\u00e0")
    say_json({"a": "\u00e9\x9b"})
    assert written.getvalue() == b'd?j?\n{"a": "\\u00e9\\u009b"}\n'
