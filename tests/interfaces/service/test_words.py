"""Words of a unit mean themselves, by systemd's own rules."""

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.interfaces.service.words import exec_line, exec_words, quoted

WORDS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=20)


@given(st.lists(WORDS, max_size=5))
def test_what_is_written_is_read_back(words: list[str]) -> None:
    command = ["/usr/bin/python", *words]
    assert exec_words(exec_line(command)) == command


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("--port=0", "--port=0"),
        ("a b", '"a b"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "hi"', r'"say \"hi\""'),
        ("C:\\x", r'"C:\\x"'),
        ("", '""'),
        (";", '";"'),
        ("-", "-"),
    ],
)
def test_what_means_something_to_systemd_is_escaped(word: str, written: str) -> None:
    assert exec_line(["/bin/p", word]) == f"/bin/p {written}"


def test_a_program_holds_no_variables() -> None:
    assert exec_line(["/opt/my $x/p", "$x"]) == '"/opt/my $x/p" "$$x"'


@pytest.mark.parametrize("word", ["two\nlines", "\x1b[2J", "bytes \udcff", "\0"])
def test_what_no_unit_can_hold_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="cannot hold"):
        quoted(word)


@pytest.mark.parametrize("line", ['"open', 'a"b"', '"a"b'])
def test_what_is_not_written_so_is_no_command(line: str) -> None:
    with pytest.raises(ValueError, match="not closed"):
        exec_words(line)
