"""Reads a TOML file that anybody may have written: what is no such file is refused in one line."""

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.errors import ConfigError
from p2pnode.toml.lines import KeyLines

MOST_BYTES: Final = 1 << 20

_MOST_DOTS = 100
"""In one key: what the standard reader takes grows with their square."""

_MOST_DIGITS = 4300  # Python reads no longer number


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What stands in a file.

    Attributes:
        path: The file.
        values: Its keys and tables.
        lines: Where each of them stands.
    """

    path: Path
    values: dict[str, object]
    lines: KeyLines


def read_toml(path: Path) -> TomlFile:
    """Read the file at ``path``; a byte order mark is no mistake.

    Raises:
        ConfigError: It cannot be read, is no file, has more than :data:`MOST_BYTES`, or is no
            TOML; the message names the path, and the line where there is one.
    """
    text = _text_of(path)
    _refuse_deep(path, text)
    try:
        return TomlFile(path, tomllib.loads(text), KeyLines(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_where(path, text, str(error))) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error
    except ValueError as error:  # the one other that the reader lets through
        raise ConfigError(
            f"{path}{_line_of_digits(text)}: a number has more than {_MOST_DIGITS} digits"
        ) from error


def _text_of(path: Path) -> str:
    try:
        data = _bytes_of(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero in it
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{path}: {reason or error}") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path}: more than {MOST_BYTES} bytes, and at most so many are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not TOML: no text in UTF-8") from error


def _bytes_of(path: Path) -> bytes:
    """Return at most one byte more than may be there; a pipe that nobody writes is not waited for.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is neither a file nor a device, such as the null device.
    """
    # Not blocking: to open a named pipe would wait until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise ConfigError(f"{path}: Is a directory")
        if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind):
            raise ConfigError(f"{path}: neither a file nor a device")
        return file.read(MOST_BYTES + 1) or b""


def _where(path: Path, text: str, problem: str) -> str:
    """Put the place that the reader names at the end of its complaint where an editor seeks it."""
    match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", problem)
    if match is None:
        return f"{path}: not TOML: {problem}"
    line, column = match[1] or text.count("\n") + 1, match[2]
    place = f"{path}:{line}:{column}" if column else f"{path}:{line}"
    return f"{place}: not TOML: {problem[: match.start()]}"


def _refuse_deep(path: Path, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MOST_DOTS and any(
            piece.count(".") > _MOST_DOTS for piece in re.split(r"[=,{}\[\]]", line)
        ):
            raise ConfigError(f"{path}:{number}: more than {_MOST_DOTS} dots in one key")


def _line_of_digits(text: str) -> str:
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(rf"[0-9_]{{{_MOST_DIGITS}}}", line):
            return f":{number}"
    return ""
