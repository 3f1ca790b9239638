"""Every command that README and docs show exists so, and somebody runs it or says why not."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from p2pnode.interfaces.cli.commands import cli
from tests.docs.commands import (
    FOLLOWED,
    PAGES,
    PARSED_ONLY,
    ROOT,
    Command,
    commands,
    compare,
    inline_options,
    parse,
    why_not_followed,
)

SHOWN = [command for page in PAGES for command in commands(page)]
EVERYWHERE = {"--help", "--version"}
IN_A_CHAT = {"--replace"}  # of /save


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_can_be_given_as_it_stands(command: Command) -> None:
    parse(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_option_that_a_page_mentions_exists(page: Path) -> None:
    known = set(_options(cli)) | EVERYWHERE | IN_A_CHAT
    for line, option in inline_options(page):
        assert option in known, f"{page.relative_to(ROOT)}:{line}: there is no {option}"


def test_each_command_in_a_block_is_run_or_has_a_reason_not_to() -> None:
    neither = [
        str(command)
        for command in SHOWN
        if not command.inline and command.page not in FOLLOWED and why_not_followed(command) is None
    ]
    assert not neither


def test_no_reason_is_left_over() -> None:
    said = [" ".join(command.words) for command in SHOWN]
    unused = [one for one in PARSED_ONLY if not any(re.fullmatch(one, each) for each in said)]
    assert not unused


def test_what_cannot_be_run_shows_no_output() -> None:
    """Nobody would notice if it changed."""
    unchecked = [str(command) for command in SHOWN if command.output and why_not_followed(command)]
    assert not unchecked


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"], ["models", "list"]])
def test_commands_that_only_look_answer(words: list[str], tmp_path: Path) -> None:
    done = ours(*words, state=tmp_path)
    assert done.stdout.strip(), done.stderr
    assert "Traceback" not in done.stderr


def test_the_example_of_a_frame_is_read_as_it_stands() -> None:
    page = (ROOT / "docs" / "protocol" / "vframe.md").read_text("utf-8")
    example = re.search(r"<!-- example: sync-ping -->\n```\n(.*?)```", page, re.DOTALL)
    assert example is not None
    done = ours("frame", "decode", stdin=example[1])
    assert done.returncode == 0, done.stderr
    assert "well-formed: a Sync: ping" in done.stdout


def test_every_command_has_an_example_in_its_help() -> None:
    """As README says."""
    without = [name for name, command in _leaves(cli) if "Example" not in (command.epilog or "")]
    assert not without


def test_every_example_in_a_help_can_be_given() -> None:
    for name, command in _leaves(cli):
        lines = (command.epilog or "").splitlines()
        for line in (line.strip() for line in lines if line.startswith("  ")):
            typed = re.split(r"\s{3,}\(", line.split(" | ")[-1])[0]
            parse(Command(f"p2pnode {name} --help", 1, typed, inline=True))


# The reader of pages itself


def test_a_command_that_does_not_exist_is_named_with_its_place() -> None:
    for text, why in [
        ("p2pnode invent", "no command 'invent'"),
        ("p2pnode peers --colour", "No such option '--colour'"),
        ("p2pnode models erase", "no command 'erase'"),
        ("p2pnode generate", "an argument is missing"),
        ("make tea", "make tea"),
    ]:
        with pytest.raises(AssertionError, match=re.escape(why)) as caught:
            parse(Command("docs/page.md", 7, text))
        assert "docs/page.md:7: " in str(caught.value)
    parse(Command("docs/page.md", 7, "p2pnode generate", inline=True))


def test_output_is_compared_by_its_shape() -> None:
    shown = ("attic (1f6c2a09) listens on 127.0.0.1:40704", "p2p1-aqgz...", "kitchen  12.5 ms ...")
    command = Command("docs/page.md", 7, "p2pnode up", output=shown)
    got = [
        "attic (00ffee12) listens on 10.0.0.7:1",
        "more",
        "p2p1-zz.top",
        "kitchen 3 ms and on",
    ]
    compare(command, got)
    with pytest.raises(AssertionError, match=r"line 9 of the page") as caught:
        compare(command, [got[0], got[3]])
    assert "p2p1-aqgz..." in str(caught.value)
    with pytest.raises(AssertionError, match=r"line 8 of the page"):
        compare(command, ["attic listens on 10.0.0.7:1", *got[1:]])


def test_blocks_and_sentences_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `p2pnode peers\n--json`, or `peers`.\n\n```console\n"
        "one$ p2pnode invite   # prints a code\np2p1-x...\n$ git clone <it> && make demo\n```\n\n"
        "```sh\np2pnode simulate a.toml\n```\n\n```\nTitle\n```\n"
    )
    monkeypatch.setattr("tests.docs.commands.ROOT", tmp_path)
    found = [(one.line, one.text, one.machine, one.output, one.inline) for one in commands(page)]
    assert found == [
        (1, "p2pnode peers --json", "", (), True),
        (5, "p2pnode invite", "one", ("p2p1-x...",), False),
        (7, "git clone '<it>'", "", (), False),
        (7, "make demo", "", (), False),
        (11, "p2pnode simulate a.toml", "", ("Title",), False),
    ]


def ours(
    *words: str, stdin: str = "", state: Path | None = None
) -> subprocess.CompletedProcess[str]:
    options = ["--state", str(state)] if state is not None and words[0] == "doctor" else []
    return subprocess.run(
        [sys.executable, "-m", "p2pnode", *words, *options],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _leaves(group: click.Group) -> list[tuple[str, click.Command]]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += _leaves(command) if isinstance(command, click.Group) else [(name, command)]
    return found


def _options(command: click.Command) -> list[str]:
    found = [name for one in command.params for name in (*one.opts, *one.secondary_opts)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += _options(inner)
    return found
