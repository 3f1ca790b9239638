"""Words in a systemd unit: quoted so that they mean themselves, and read back.

The rules are those of systemd.syntax(7) and of "Command lines" in systemd.service(5): within
double quotes a backslash escapes, everywhere a percent sign begins a specifier, and in a command's
arguments a dollar sign begins a variable.
"""

import re
from collections.abc import Sequence

from p2pnode.errors import UserError

_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)
_WORD = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')
_ESCAPE = re.compile(r"\\(.)")


def quoted(word: str) -> str:
    """Return ``word`` as a unit has it, where no variables are looked for.

    Raises:
        UserError: No unit can hold it: a control character, or bytes that are no UTF-8.
    """
    if not word.isprintable():
        raise UserError(
            f"a unit of systemd cannot hold {ascii(word)[:80]}",
            hint="name it without control characters and in UTF-8, by a link for instance",
        )
    escaped = word.replace("%", "%%")
    if _PLAIN.fullmatch(word):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def exec_line(command: Sequence[str]) -> str:
    """Return a command as ``ExecStart=`` has it; its program is a path, and holds no variables."""
    program, *arguments = command
    return " ".join((quoted(program), *(quoted(word).replace("$", "$$") for word in arguments)))


def exec_words(line: str) -> list[str]:
    """Return the command that ``ExecStart=`` means, as :func:`exec_line` writes it.

    Raises:
        ValueError: It is not written so.
    """
    words, at = list[str](), 0
    line = line.rstrip()
    while at < len(line):
        match = _WORD.match(line, at)
        if match is None:
            raise ValueError("a word is not closed")
        at = match.end()
        word = match[2] if match[1] is None else _ESCAPE.sub(r"\1", match[1])
        word = word.replace("%%", "%")
        words.append(word.replace("$$", "$") if words else word)
    return words
