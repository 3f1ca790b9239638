"""What is typed: commands, messages of several lines, pastes, and what came in one piece."""

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.interfaces.chat import composing
from p2pnode.interfaces.chat.bursts import PASTE_BEGINS, PASTE_ENDS, Bursts
from p2pnode.interfaces.chat.commands import COMMANDS, Command, help_text, parse_command
from p2pnode.interfaces.chat.pastes import MOST_HELD, MOST_SHOWN, Pastes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/help", Command("help", "")),
        (" /RESET ", Command("reset", "")),
        ("/?", Command("help", "")),
        ("/quit", Command("bye", "")),
        ("/system Be\nbrief", Command("system", "Be\nbrief")),
        ("/save  a b.json", Command("save", "a b.json")),
        ("/usr/bin is where?", None),
        ("/ 2", None),
        ("/2", None),
        ("//", None),
        ("hello /help", None),
    ],
)
def test_a_command_is_a_slash_and_a_word(text: str, expected: Command | None) -> None:
    assert parse_command(text) == expected


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("/saev x", "there is no command /saev", "/save;"),
        ("/xyzzy", "there is no command /xyzzy", "/help lists them"),
        ("/reset all", "/reset takes nothing behind it", "/reset"),
        ("/load", "/load needs FILE", "/load FILE"),
    ],
)
def test_a_wrong_command_is_one_clear_error(text: str, words: str, hint: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_command(text)
    assert hint in caught.value.hint


@given(st.text(max_size=50))
def test_whatever_is_typed_is_a_command_or_a_message_or_refused(text: str) -> None:
    hint = ""
    try:
        command = parse_command(f"/{text}")
    except UserError as error:
        hint = error.hint
    else:
        assert command is None or command.name in COMMANDS
        hint = "none is needed"
    assert hint


def test_the_help_has_every_command() -> None:
    assert all(f"/{name}" in help_text() for name in COMMANDS)


@pytest.mark.parametrize(
    ("text", "is_open", "said"),
    [
        ("hello", False, "hello"),
        ("hello\\", True, "hello\\"),
        ("path\\\\", False, "path\\\\"),
        ('"""', True, ""),
        ('"""a\n\nb', True, "a\n\nb"),
        ('"""a\nb"""', False, "a\nb"),
        ('"""\na\n"""', False, "a"),
        ('""""""', False, ""),
        ('say """ so', False, 'say """ so'),
    ],
)
def test_when_enter_begins_another_line(text: str, is_open: bool, said: str) -> None:
    assert composing.is_open(text) == is_open
    assert composing.said(text) == said


def test_a_backslash_at_a_lines_end_leaves_with_the_line() -> None:
    assert composing.next_line("one\\") == "one\n"
    assert composing.next_line('"""one\\') == '"""one\\\n'


def pasted(text: str) -> str:
    return f"{PASTE_BEGINS}{text}{PASTE_ENDS}"


@pytest.mark.parametrize(
    ("data", "marked"),
    [
        ("a\nb\nc\n", pasted("a\nb\nc") + "\n"),
        ("a\rb", pasted("a\rb")),
        ("x" * 100, pasted("x" * 100)),
        ("hello\n", "hello\n"),
        ("\n", "\n"),
        ("a\x1b[Db\nc\n", "a\x1b[Db\nc\n"),
        ("\u00e9\x7f\x7fa\n", "\u00e9\x7f\x7fa\n"),
        (pasted("a\nb\nc"), pasted("a\nb\nc")),
    ],
)
def test_what_comes_in_one_piece_is_a_paste(data: str, marked: str) -> None:
    assert Bursts().mark(data) == marked


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_paste_that_is_marked_is_marked_once_however_it_is_cut(one: int, two: int) -> None:
    whole = pasted("first\nsecond\nthird") + "\n"
    bursts, cuts = Bursts(), sorted((min(one, len(whole)), min(two, len(whole))))
    pieces = (whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :])
    marked = "".join(map(bursts.mark, pieces))
    assert marked == whole or cuts[0] < len(PASTE_BEGINS) or cuts[1] > len(whole) - len(PASTE_ENDS)


def test_a_large_paste_stands_in_the_line_by_a_name() -> None:
    pastes, large = Pastes(), "word\r\n" * 500
    assert pastes.take("small\rpaste") == "small\npaste"
    name = pastes.take(large)
    assert name == "[paste 1: 500 lines, 2500 letters]"
    other = pastes.take("y" * (MOST_SHOWN + 1))
    line = f"look: {name} and {other} and [paste 3]"
    expected = "look: " + "word\n" * 500 + " and " + "y" * (MOST_SHOWN + 1) + " and [paste 3]"
    assert pastes.expanded(line) == expected
    pastes.clear()
    assert pastes.expanded(line) == line


def test_what_is_too_long_to_hold_is_said_in_the_line() -> None:
    assert "was left out" in Pastes().take("x" * (MOST_HELD + 1))
