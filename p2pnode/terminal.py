"""What a terminal may be shown of words that models, files and peers wrote.

Control characters steer a terminal: they move its cursor, rename its window, answer for its user.
Nothing else is dropped: U+00A0, U+3000 and U+00AD are text, and U+200C and U+200D shape the letters
of Persian and of many emoji. A label, such as a peer's name, is one line among others of ours, so
it also loses the marks that turn the reading direction of what follows it.
"""

import json
import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # category Cc but newline and tab
_BREAKS: Final = re.compile(r"[\t\n\x0b\x0c\r\x85\u2028\u2029]+")
_TURNS: Final = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_HALF_PAIRS: Final = re.compile(r"[\ud800-\udfff]")
_RAW_IN_JSON: Final = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """Return ``text`` without control characters but newlines and tabs; half a pair is U+FFFD."""
    if text.isprintable():
        return text
    return whole(_CONTROL.sub("", text))


def label(text: str) -> str:
    """Return ``text`` as one line that steers nothing: breaks become spaces."""
    if text.isprintable():
        return text
    return _TURNS.sub("", shown(_BREAKS.sub(" ", text)))


def whole(text: str) -> str:
    """Return ``text`` with U+FFFD for each half of a pair: JSON may carry them, UTF-8 may not."""
    return text if text.isascii() else _HALF_PAIRS.sub("\ufffd", text)


def to_json(value: object, *, indent: int | None = None) -> str:
    """Write JSON that says the same and steers nothing: what could is escaped.

    ``json`` escapes control characters below U+0020 alone.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
