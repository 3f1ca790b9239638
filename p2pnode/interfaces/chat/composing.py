'''Messages of several lines: when Enter sends one, and what of it is said.

A message is open while its last line ends with a backslash, or while it begins with """ and no
further """ has ended it. Neither sign is part of what is said.
'''

from typing import Final

_QUOTES: Final = '"""'


def is_open(text: str) -> bool:
    """Tell whether Enter at the end of ``text`` begins another line instead of sending it."""
    return _is_quoted_open(text) or _ends_in_backslash(text)


def next_line(text: str) -> str:
    """Return an open text with another line begun."""
    return f"{text[:-1]}\n" if _ends_in_backslash(text) and not _is_quoted(text) else f"{text}\n"


def said(text: str) -> str:
    """Return what a text that was sent says: without the quotes around it."""
    if not _is_quoted(text):
        return text
    inner = text.strip().removeprefix(_QUOTES)
    return inner.removesuffix(_QUOTES).strip("\n")


def _is_quoted(text: str) -> bool:
    return text.lstrip().startswith(_QUOTES)


def _is_quoted_open(text: str) -> bool:
    return _is_quoted(text) and not text.strip().removeprefix(_QUOTES).endswith(_QUOTES)


def _ends_in_backslash(text: str) -> bool:
    """Tell whether it ends in one backslash; two are a backslash that was meant."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1
