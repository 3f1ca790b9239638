"""Text that knows, character by character, who wrote it.

A prompt is rendered by a model's template from what people and programs said. Only the template's
own words may become control tokens; what was said never may, however it is spelled. So each
character carries a mark: written by the template, given as data, or unknown. Unknown is what comes
out of an operation that nobody follows; it is never taken for the template's.

A plain ``str`` counts as unknown, and so does the text of a number, which may come from anywhere.
An operation not known here returns a plain ``str``: marks may be lost, and then are missing.

Marks are given back to such text only where it was made of its arguments and of nothing else, and
these are text, numbers, and plain lists and mappings of them (:func:`mark_of`). A macro, a view or
any other object may hold anything, and makes the text unknown. Text is given back to the template
only where all its arguments are the template's text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Self, SupportsIndex

from p2pnode.terminal import whole

TEMPLATE: Final = b"t"
DATA: Final = b"d"
UNKNOWN: Final = b"u"
_NUMBER: Final = b"n"  # no character has it

# One conversion of ``%``. Keys in brackets within brackets and widths that are arguments are left
# out: text that has them is not followed.
_CONVERSION: Final = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<how>[#0\- +]*\d*(?:\.\d*)?)[hlL]?(?P<kind>[a-zA-Z%])"
)


class Marked(str):
    """A ``str`` with a mark for each character.

    Whatever of ``str`` returns text is either followed exactly here, or returns text of one mark
    where all that went in had that one, or plain ``str``.
    """

    __slots__ = ("_marks",)
    _marks: bytes

    def __new__(cls, text: str, marks: bytes) -> Self:
        made = super().__new__(cls, str.__str__(text))
        if len(marks) != len(made):
            raise ValueError("text has one mark for each character")
        made._marks = marks
        return made

    def __str__(self) -> str:
        return self

    # Pieces of it

    def __getitem__(self, key: SupportsIndex | slice) -> "Marked":
        found = self._marks[key]
        marks = found if isinstance(found, bytes) else bytes([found])
        return Marked(str.__getitem__(self, key), marks)

    def __iter__(self) -> Iterator["Marked"]:
        return (self[at] for at in range(len(self)))

    def strip(self, chars: str | None = None, /) -> "Marked":
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> "Marked":
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None, /) -> "Marked":
        return self[: len(str.rstrip(self, chars))]

    def removeprefix(self, prefix: str, /) -> "Marked":
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str, /) -> "Marked":
        return self[: len(str.removesuffix(self, suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.rsplit(self, sep, maxsplit), sep)

    def _located(self, parts: list[str], sep: str | None) -> list[str]:
        """Return ``parts``, which lie in this text in order, with their marks."""
        found: list[str] = []
        at = 0
        for part in parts:
            start = at if sep else str.find(self, part, at)  # only white space lies between
            found.append(self[start : start + len(part)])
            at = start + len(part) + len(sep or "")
        return found

    def splitlines(self, keepends: bool = False) -> list[str]:
        found: list[str] = []
        at = 0
        for ended, line in zip(str.splitlines(self, True), str.splitlines(self), strict=True):
            found.append(self[at : at + len(ended if keepends else line)])
            at += len(ended)
        return found

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        return self._in_three(str.partition(self, sep))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        return self._in_three(str.rpartition(self, sep))

    def _in_three(self, parts: tuple[str, str, str]) -> tuple[str, str, str]:
        end = len(parts[0])
        after = end + len(parts[1])
        return self[:end], self[end:after], self[after:]

    # Put together

    def __add__(self, other: object) -> "Marked":
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> "Marked":
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> "Marked":
        return Marked(str.__mul__(self, times), self._marks * times)

    __rmul__ = __mul__

    def join(self, parts: Iterable[str], /) -> "Marked":
        pieces: list[str] = []
        for part in parts:
            if pieces:
                pieces.append(self)
            pieces.append(part)
        return joined(pieces)

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return remarked(str.replace(self, old, new, count), (self, new))
        parts = self.split(old, count)
        return new.join(parts) if isinstance(new, Marked) else joined(_between(parts, new))

    def __mod__(self, values: object) -> str:
        plain = str.__mod__(self, values)
        filled = joined(self._filled(values))
        return filled if str.__str__(filled) == plain else plain

    def _filled(self, values: object) -> Iterator[str]:
        """Yield this text and, for each conversion, what it writes; what is not followed, as is."""
        given = iter(values if isinstance(values, tuple) else (values,))
        at = 0
        for found in _CONVERSION.finditer(str.__str__(self)):
            key, how, kind = found.group("key", "how", "kind")
            yield self[at : found.start()]
            at = found.end()
            if kind == "%":
                yield self[at - 1 : at]
                continue
            value = next(given) if key is None else values[key]  # type: ignore[index]
            if kind == "s" and not how:
                written = text_of(value)
            else:
                written = remarked(str.__mod__(f"%{how}{kind}", (value,)), value)
            yield chosen_by(self[found.start() : at], written)
        yield self[at:]

    # Letter by letter: where no letter became two, each kept its place

    def upper(self) -> str:
        return self._same_places(str.upper(self))

    def lower(self) -> str:
        return self._same_places(str.lower(self))

    def title(self) -> str:
        return self._same_places(str.title(self))

    def capitalize(self) -> str:
        return self._same_places(str.capitalize(self))

    def casefold(self) -> str:
        return self._same_places(str.casefold(self))

    def swapcase(self) -> str:
        return self._same_places(str.swapcase(self))

    def _same_places(self, changed: str) -> str:
        if len(changed) == len(self):
            return Marked(changed, self._marks)
        return remarked(changed, (self,))


def marks_of(text: str) -> bytes:
    """Return one mark for each character of ``text``."""
    return text._marks if isinstance(text, Marked) else UNKNOWN * len(text)  # noqa: SLF001


def template_text(text: str) -> Marked:
    """Mark ``text`` as the template's own."""
    return Marked(text, TEMPLATE * len(text))


def data_text(text: str) -> Marked:
    """Mark ``text`` as data."""
    return Marked(whole(text), DATA * len(text))


def as_data(value: object) -> object:
    """Return a copy of JSON in which every string, keys too, that has no marks is data."""
    match value:
        case Marked():
            return value
        case str():
            return data_text(value)
        case Mapping():
            return {as_data(key): as_data(inner) for key, inner in value.items()}
        case list() | tuple():
            return [as_data(inner) for inner in value]
        case _:
            return value


def joined(parts: Iterable[object]) -> Marked:
    """Put ``parts`` together; what is no text is written out first."""
    pieces = [part if isinstance(part, str) else text_of(part) for part in parts]
    return Marked("".join(pieces), b"".join(map(marks_of, pieces)))


def text_of(value: object) -> str:
    """Write out any value; text in a list or mapping keeps its marks, the signs around are data."""
    if isinstance(value, str):
        return value
    return joined(_written(value)) if type(value) in (dict, list, tuple) else str(value)


def quoted(text: str, written: str) -> Marked:
    """Return ``written``, which is ``text`` in quotes, with its marks.

    Where something was escaped it has the one mark of the text.
    """
    if len(written) == len(text) + 2:
        return joined((data_text(written[0]), text, data_text(written[-1])))
    return joined((remarked(written, text),))


def _written(value: object) -> Iterator[str]:
    """Yield the pieces of what ``repr`` writes."""
    match value:
        case str():
            yield quoted(value, repr(value))
        case dict():
            yield data_text("{")
            for number, (key, inner) in enumerate(value.items()):
                yield data_text(", " if number else "")
                yield from _written(key)
                yield data_text(": ")
                yield from _written(inner)
            yield data_text("}")
        case list() | tuple():
            signs = "[]" if isinstance(value, list) else "()"
            yield data_text(signs[0])
            for number, inner in enumerate(value):
                yield data_text(", " if number else "")
                yield from _written(inner)
            yield data_text((",)" if len(value) == 1 else ")") if signs == "()" else "]")
        case _:
            yield data_text(repr(value))


def remarked(text: str, sources: object) -> str:
    """Return ``text``, made from ``sources`` in a way not followed, with the one mark of these.

    Only for what a pure function made of ``sources`` and of nothing else.
    """
    mark = mark_of(sources)
    if mark in (b"", UNKNOWN):
        return text if isinstance(text, Marked) else str.__str__(text)
    return Marked(text, mark * len(text))


def chosen_by(pattern: str, text: str) -> str:
    """Return ``text``, which ``pattern`` placed: unless that is a template's, no text of it is.

    Data that reads ``{0}{1}`` would otherwise put a control token together out of its pieces.
    """
    if not isinstance(text, Marked) or not marks_of(pattern).strip(TEMPLATE):
        return text
    return Marked(text, marks_of(text).replace(TEMPLATE, UNKNOWN))


def mark_of(value: object) -> bytes:
    """Return the one mark of all text in ``value``, empty where there is none.

    It is unknown where marks differ, where something is neither text nor number nor a plain list or
    mapping of these, and where a number stands beside the template's text: it may be data.
    """
    found = set(_marks_in(value))
    if _NUMBER in found:
        found.remove(_NUMBER)
        if TEMPLATE in found:
            return UNKNOWN
    if len(found) > 1:
        return UNKNOWN
    return found.pop() if found else b""


def _marks_in(value: object) -> Iterator[bytes]:
    if isinstance(value, str):
        marks = marks_of(value)
        yield from (mark for mark in (TEMPLATE, DATA, UNKNOWN) if mark in marks)
    elif value is None or type(value) in (bool, int, float):
        yield _NUMBER
    elif type(value) is dict:
        for key, inner in value.items():
            yield from _marks_in(key)
            yield from _marks_in(inner)
    elif type(value) in (list, tuple):
        for inner in value:  # type: ignore[attr-defined]
            yield from _marks_in(inner)
    else:
        yield UNKNOWN  # it may hold anything, and looking may use it up


def _between(parts: list[str], what: str) -> Iterator[str]:
    for number, part in enumerate(parts):
        if number:
            yield what
        yield part
