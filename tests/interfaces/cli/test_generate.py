"""What ``generate`` asks: the prompt behind what stands on standard input, and how."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli import ask_commands
from p2pnode.interfaces.cli.ask_commands import chat, generate


def asked(*words: str, stdin: str = "") -> dict[str, Any]:
    """Return the question of a command line; nothing is asked."""
    questions: list[dict[str, Any]] = []
    made = ask_commands._question

    def question(*arguments: Any, **more: Any) -> dict[str, Any]:
        questions.append(made(*arguments, **more))
        raise UsageError("far enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ask_commands, "_question", question)
        done = CliRunner().invoke(generate, words, input=stdin)
    assert str(done.exception) == "far enough", done.output
    return questions[0]


def test_what_is_piped_stands_before_the_prompt() -> None:
    assert asked("Sum up.", stdin="notes\n")["prompt"] == "notes\n\nSum up."
    assert asked("Sum up.", stdin=" \n")["prompt"] == "Sum up."
    assert asked("Sum up.", "--no-stdin", stdin="notes")["prompt"] == "Sum up."
    assert asked("-", stdin="all of it")["prompt"] == "all of it"


def test_a_system_prompt_is_the_first_message(tmp_path: Path) -> None:
    (tmp_path / "system").write_text("\ufeffBe brief.\n", "utf-8")
    for given in ("Be brief.", f"@{tmp_path / 'system'}"):
        messages = asked("Why?", "--system", given)["messages"]
        assert [one["content"] for one in messages] == ["Be brief.", "Why?"]
    assert asked("Why?", "--system", "@@home")["messages"][0]["content"] == "@home"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--system", "@/no/such"], "No such file"),
        (["--system", "@/dev/zero"], "more than 1 MiB"),
        (["--stop", ""], "a stop string is empty"),
        (["--stop", "x" * 257], "has 257 characters"),
        ([*(word for n in range(17) for word in ("--stop", str(n)))], "17 stop strings"),
    ],
)
@pytest.mark.parametrize("command", [generate, chat])
def test_what_cannot_be_is_refused_before_anything_starts(
    command: Any, words: list[str], said: str
) -> None:
    done = CliRunner().invoke(command, [*words, *(["Why?"] if command is generate else [])])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_text_to_go_on_with_has_no_place_for_a_system_prompt() -> None:
    done = CliRunner().invoke(generate, ["Why?", "--raw", "--system", "Be brief."])
    assert isinstance(done.exception, UsageError)
    assert "--raw" in str(done.exception)


@pytest.mark.parametrize("command", [generate, chat])
def test_the_help_names_every_way(command: Any) -> None:
    shown = CliRunner().invoke(command, ["--help"]).output
    assert all(word in shown for word in ("--system", "--stop", "--json-schema", "Examples:"))
