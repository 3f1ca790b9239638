"""Where a chat template runs: jinja2's sandbox, with every character's mark kept.

A template is a program inside a file that came from elsewhere, so it runs in the sandbox. What it
is offered is what the ``transformers`` library offers: ``raise_exception``, ``strftime_now``, loop
controls, the generation tag, and a ``tojson`` that escapes nothing that JSON need not.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from itertools import count
from types import BuiltinMethodType
from typing import Any, Final

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import pass_environment

from p2pnode.text.marked import (
    DATA,
    UNKNOWN,
    Marked,
    chosen_by,
    data_text,
    joined,
    mark_of,
    quoted,
    remarked,
    template_text,
    text_of,
)

_STRING: Final = json.encoder.encode_basestring
_STRING_ASCII: Final = json.encoder.encode_basestring_ascii

_METHODS: Final = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_FILTERS: Final = frozenset(
    {
        *("capitalize", "center", "e", "escape", "forceescape", "lower", "pprint", "replace"),
        *("striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize", "wordwrap"),
        "xmlattr",
    }
)
"""What writes text out of its arguments and of nothing else. Text that anything else made, and that
is not followed, is of unknown origin: it may come from a closure, a namespace or a view."""

_ANYTHING: Final = object()  # stands for sources that nobody knows


class _MarkingGenerator(CodeGenerator):
    """Compiles a template so that its own words come out marked as its own.

    jinja2 lets an environment name its generator (``code_generator_class``); its own native types
    replace the same methods.
    """

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.value, str):
            self.write(f"environment.literal({node.value!r})")
        else:
            super().visit_Const(node, frame)

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:  # noqa: N802
        self.write(f"environment.literal({node.data!r})")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_child_to_const(
        self,
        node: nodes.Expr,
        frame: Frame,
        finalize: CodeGenerator._FinalizeInfo,
    ) -> str:
        if not isinstance(node, nodes.TemplateData | nodes.Const):
            raise nodes.Impossible  # what an operation gives has its marks when it runs
        return super()._output_child_to_const(node, frame, finalize)

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.literal({''.join(map(str, group))!r})"


class _Generation(Extension):
    """``{% generation %}``: what a trainer learns on; for a prompt it is only a block."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class MarkingEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, in which text is :class:`~p2pnode.text.marked.Marked`.

    Attributes:
        untracked: What made text of unknown origin out of several kinds since this was last
            emptied, by name, for whoever must refuse it.
    """

    code_generator_class = _MarkingGenerator
    concat = staticmethod(joined)

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # no constants are computed while compiling
            finalize=text_of,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.untracked: list[str] = []
        self._literals: dict[str, Marked] = {}
        self.filters |= {"join": _join, "tojson": _tojson, "safe": text_of, "string": text_of}
        self.filters["indent"] = _indent
        self.filters = {name: self._followed(name, one) for name, one in self.filters.items()}
        self.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda pattern: remarked(clock().strftime(str(pattern)), pattern),
        }

    def literal(self, text: str) -> Marked:
        """Return words of the template, marked as such."""
        known = self._literals.get(text)
        if known is None:
            known = self._literals[text] = template_text(text)
        return known

    def call(self, context: Context, obj: object, *args: Any, **kwargs: Any) -> object:
        result = super().call(context, obj, *args, **kwargs)
        name, text = getattr(obj, "__name__", "call"), getattr(obj, "__self__", None)
        pure = isinstance(text, str) and isinstance(obj, BuiltinMethodType) and name in _METHODS
        return self._settled(result, (text, args, kwargs) if pure else _ANYTHING, name)

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        """Return ``format`` of marked text as one that keeps the sandbox and the marks."""
        text = getattr(value, "__self__", None)
        name = getattr(value, "__name__", "")
        if not isinstance(text, Marked) or name not in ("format", "format_map"):
            return super().wrap_str_format(value)
        formatter = _MarkingFormatter(self)
        if name == "format":
            return lambda *args, **kwargs: formatter.fill(text, args, kwargs)
        return lambda mapping: formatter.fill(text, (), mapping)

    def _followed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        handed = 1 if hasattr(function, "jinja_pass_arg") else 0  # jinja2's own first argument

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> object:
            sources = (args[handed:], kwargs) if name in _FILTERS else _ANYTHING
            return self._settled(function(*args, **kwargs), sources, f"filter {name!r}")

        return call

    def _settled(self, result: object, sources: object, name: str) -> object:
        """Give text that lost its marks the one mark of its sources, or note who lost them.

        Marked text was followed exactly: whatever in it is unknown was so before.
        """
        if not isinstance(result, str) or isinstance(result, Marked) or not result:
            return result
        settled = remarked(result, sources)
        if not isinstance(settled, Marked) and name not in self.untracked:
            self.untracked.append(name)
        return settled


class _MarkingFormatter(SandboxedFormatter):
    """``str.format`` piece by piece; attributes are reached through the sandbox."""

    def fill(self, text: Marked, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Marked:
        return joined(self._pieces(text, args, kwargs, count()))

    def _pieces(
        self,
        text: Marked,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        automatic: Iterator[int],
    ) -> Iterator[str]:
        mark = mark_of(text) or UNKNOWN  # where in the text a piece stands is not known
        for literal, field, spec, conversion in self.parse(text):
            yield Marked(literal, mark * len(literal))
            if field is None:
                continue
            if not field or field[0] in ".[":
                field = f"{next(automatic)}{field}"  # noqa: PLW2901
            found, _ = self.get_field(field, args, kwargs)
            how = Marked(spec or "", mark * len(spec or ""))
            how = joined(self._pieces(how, args, kwargs, automatic))
            yield chosen_by(text, self._written(found, how, conversion))

    def _written(self, value: object, spec: Marked, conversion: str | None) -> str:
        if not spec and conversion in (None, "s"):
            return text_of(value)
        written = str(self.format_field(self.convert_field(value, conversion), spec))
        # What fills up to a width is the specification's, so data may be written by any, and the
        # template's text by the template's own.
        return remarked(written, value if mark_of(value) == DATA else (value, spec))


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


@pass_environment
def _join(
    environment: MarkingEnvironment,
    value: Iterable[Any],
    d: str = "",
    attribute: str | int | None = None,
) -> Marked:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    between = d if isinstance(d, Marked) else Marked(str(d), UNKNOWN * len(str(d)))
    return between.join(map(text_of, value))


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> Marked:
    """Indent as jinja2 does, which joins with plain text; the steps are the template's."""
    step = width if isinstance(width, str) else template_text(" " * width)
    lines = joined((s, template_text("\n"))).splitlines()
    return template_text("\n").join(
        joined((step, line)) if (line or blank if number else first) else line
        for number, line in enumerate(lines)
    )


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> Marked:
    """Write JSON as ``json.dumps`` does; what is no string in it, its signs too, is data."""
    step = " " * indent if isinstance(indent, int) else indent
    comma, colon = separators or (", " if step is None else ",", ": ")
    writer = _JsonWriter(_STRING_ASCII if ensure_ascii else _STRING, step, comma, colon, sort_keys)
    return joined(
        piece if isinstance(piece, Marked) else data_text(piece) for piece in writer.pieces(value)
    )


class _JsonWriter:
    def __init__(
        self,
        quote: Callable[[str], str],
        step: str | None,
        comma: str,
        colon: str,
        sort_keys: bool,
    ) -> None:
        self._quote, self._step, self._sort_keys = quote, step, sort_keys
        self._comma, self._colon = str.__str__(comma), str.__str__(colon)

    def pieces(self, value: object, depth: int = 0) -> Iterator[str]:
        match value:
            case str():
                yield self._string(value)
            case Mapping():
                pairs = sorted(value.items()) if self._sort_keys else value.items()
                yield from self._many("{}", [self._pair(*pair, depth + 1) for pair in pairs], depth)
            case list() | tuple():
                yield from self._many("[]", [self.pieces(one, depth + 1) for one in value], depth)
            case _:
                yield json.dumps(value)  # refuses what JSON does not have

    def _pair(self, key: object, value: object, depth: int) -> Iterator[str]:
        yield self._string(key if isinstance(key, str) else json.dumps(key))
        yield self._colon
        yield from self.pieces(value, depth)

    def _many(self, signs: str, items: list[Iterator[str]], depth: int) -> Iterator[str]:
        yield signs[0]
        for number, item in enumerate(items):
            yield self._comma if number else ""
            yield self._line(depth + 1)
            yield from item
        yield self._line(depth) if items else ""
        yield signs[1]

    def _line(self, depth: int) -> str:
        return "" if self._step is None else "\n" + self._step * depth

    def _string(self, text: str) -> str:
        """Quote ``text``, keeping its marks where nothing in it is escaped, else its one mark."""
        return quoted(text, self._quote(str.__str__(text)))
