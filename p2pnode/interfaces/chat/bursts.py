"""What a terminal sends in one piece is a paste, though it does not say so.

Terminals that mark pastes put two sequences around them. Where one does not, a paste comes as keys,
and each line's end would send a message. People press one key at a time, so what comes at once,
and has the end of a line before its own end, was not typed.
"""

from typing import Final

PASTE_BEGINS: Final = "\x1b[200~"
PASTE_ENDS: Final = "\x1b[201~"
LONG: Final = 64
"""Characters that nobody types between two looks at the keyboard. A guess."""

_ENDS: Final = ("\r", "\n")
_TEXT_CONTROLS: Final = str.maketrans("", "", "\r\n\t")


class Bursts:
    """Marks as pastes what comes in one piece."""

    def __init__(self) -> None:
        self._is_in_paste = False
        self._tail = ""  # the end of what came: a mark may be cut

    def mark(self, data: str) -> str:
        """Return ``data`` as a terminal would have sent it that marks pastes.

        A line's end that ends it is a key: it sends what was pasted.
        """
        if self._is_marked(data) or not _is_paste(data):
            return data
        text = data[:-1] if data.endswith(_ENDS) else data
        return f"{PASTE_BEGINS}{text}{PASTE_ENDS}{data[len(text) :]}"

    def _is_marked(self, data: str) -> bool:
        """Tell whether a paste that its terminal marked begins, goes on or ends in ``data``."""
        was_in_paste = self._is_in_paste
        seen = self._tail + data
        begins, ends = seen.rfind(PASTE_BEGINS), seen.rfind(PASTE_ENDS)
        if max(begins, ends) >= 0:
            self._is_in_paste = begins > ends
        self._tail = seen[1 - len(PASTE_BEGINS) :]
        return was_in_paste or self._is_in_paste or begins >= 0


def _is_paste(data: str) -> bool:
    """Tell whether it is text that was not typed; keys such as arrows are no text."""
    if len(data) < 3 or not _is_text(data):
        return False
    body = data[:-1]
    return len(data) > LONG or any(end in body for end in _ENDS)


def _is_text(data: str) -> bool:
    rest = data.translate(_TEXT_CONTROLS)
    return not any(letter < " " or letter == "\x7f" for letter in rest)
