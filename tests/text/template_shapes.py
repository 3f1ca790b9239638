"""Templates put together at random out of what templates are made of.

No template made here writes ``>``, so with that as a control token, one that appears was made of
data: of text that was said, or of a number that stands for the letter.
"""

from collections.abc import Callable, Sequence
from typing import Any

from p2pnode.text.tokenizer import Tokenizer, byte_alphabet

FORGED = 256  # the id of ">"
_LETTERS = {value[0]: letter for letter, value in byte_alphabet().items()}
_TOKENS = (*(_LETTERS[byte] if byte != ord(">") else "unused" for byte in range(256)), ">")

_LITERALS = ("''", "'a'", "'<|im_'", "' b <'", "'%'", "'\\n'", "'{'", "'A-b'", "'x' * 3", "'&gt;'")
_SAID = (
    *("m.content", "messages[0].content", "m['name']", "messages[-1].name", "m.role", "m.n"),
    *("ns.a", "v", "w", "x", "tools[0].name", "loop.index", "62", "none", "true", "nothing"),
)
_FILTERS = (
    *("title", "upper", "lower", "capitalize", "trim", "string", "safe", "e", "escape"),
    *("forceescape", "center(9)", "center(m.n)", "indent(2)", "indent('>'[:0])", "wordwrap(3)"),
    *("wordwrap(4, true, m.name)", "truncate(5)", "truncate(5, true, m.name)", "urlize"),
    *("urlencode", "striptags", "reverse", "pprint", "tojson", "tojson(indent=1)", "default(w)"),
    *("replace('a', m.content)", "replace('', w)", "replace(m.name, 'a')", "replace('b', m.n)"),
    *("filesizeformat", "list", "first", "last", "wordcount"),
    *("attr('upper')", "default('')", "replace('<', ns.a, 1)", "truncate(m.n)", "int"),
)
_METHODS = (
    *("strip()", "lstrip('a<')", "rstrip(w)", "upper()", "title()", "casefold()", "swapcase()"),
    *("center(9, 'x')", "center(9, m.name[:1])", "ljust(9)", "rjust(9, '<')", "zfill(9)"),
    *("expandtabs()", "removeprefix('a')", "removesuffix(m.name)", "join(m.name)", "join('ab')"),
    *("join(m.items() | map('last') | map('string'))", "replace('a', w)", "replace('', m.name)"),
    *("translate({97: 62})", "translate({97: m.name})", "title()"),
    *("encode().decode()", "partition('a') | join", "splitlines() | join('b')"),
)
_PERCENTS = (
    *("'%s' % ({0},)", "'%d: %s' % (1, {0})", "'%5s' % ({0},)", "'%-4.2s|' % ({0},)"),
    *("'%r' % ({0},)", "'%c' % m.n", "'%c' % ({0}[:1],)", "'%s%%' % ({0},)", "'%a' % ({0},)"),
    *("'%(name)s' % m", "'%(content)5s%%' % m", "'%x %s' % (m.n, {0})", "'%*d' % (m.n, 1)"),
    *("'%*s' % (9, {0})", "'%s %s' % ({0}, {1})", "'%%%s' % ({0},)", "'%.1f%s' % (1, {0})"),
    *("'%s' | format({0})", "'%d: %s' | format(1, {0})", "'%(x)s' | format(x={0})", "{1} % ()"),
    *("'%r' | format({0})", "'%c' | format(m.n)", "{1} | format({0})", "{1} % ({0},)"),
)
_FIELDS = (
    *("'{}'.format({0})", "'{0}{0}'.format({0})", "'{:>9}'.format({1})", "'{!r}'.format({0})"),
    *("'{:{}}'.format({1}, 9)", "'{!a:^9}'.format({0})", "'{0.content}'.format(m)"),
    *("'{0[content]}'.format(m)", "'{x}'.format(x={0})", "'{0:{x}}'.format('a', x={1})"),
    *("'{:c}'.format(m.n)", "'{:d}a{}'.format(1, {0})", "'{{}}{}'.format({0})"),
    *("'{0.items}'.format(m)", "'{x!s:a<9}'.format(x={0})", "'{0.a}'.format(ns)"),
    *("'{:,}'.format(m.n)", "'{0!r:>{1}}'.format({0}, 9)", "{1}.format({0})", "'{}'.format(*m)"),
    *("'{name}{n}'.format_map(m)", "'{0[0].content}'.format(messages)"),
)
_OBJECTS = (
    *("m", "messages", "m.items()", "m.values()", "m.keys()", "ns", "mac", "dict(a=m.name)"),
    *("messages[0].items() | list", "loop", "cycler(m.name, 'a')", "joiner(m.name)", "tools"),
    *("messages | map(attribute='content')", "messages | groupby('role')", "m | dictsort", "self"),
    *("messages | batch(1)", "m | items", "m.content.upper", "nothing", "range(3)", "[w, v, 1]"),
    *("{'a': [m.name]}", "{m.name: 1}", "(w,)", "[m.items()]", "{'a': ns}", "[mac]", "cycler('a')"),
    *("lipsum", "strftime_now", "[messages | map('first')]", "namespace(b=w)", "[m.n]"),
)
_LISTS = (
    *("{0}.split()", "{0}.split('a')", "{0} | list", "{0}.rsplit(w)", "{0}.splitlines(true)"),
    *("[{0}, {1}]", "({0}, {1}, '<')", "[{0}, {1}] | reverse | list", "[{0}, {1}] | sort"),
    *("[{0}, {1}] | unique | list", "[{0}, {1}, w] | batch(2, w) | first", "[{0}] | map('title')"),
    *("[{0}, {1}, w] | slice(2) | last", "messages | map(attribute='content') | list"),
    *("m.values() | map('string') | list", "messages | groupby('role') | map('first') | list"),
    *("m | dictsort | map('last') | map('string') | list", "m.items() | map('join') | list"),
    *("m | items | map('join', {0}) | list", "m.items() | first", "[{0}] | map('format', w)"),
    *("messages | map('xmlattr') | list", "[{0}, {1}] | select('string')", "m.keys() | list"),
    *("messages | map('title')", "['%s'] | map('format', m.items())", "[{0}] * 2", "{0}[1:]"),
)
_TESTS = ("m.n", "loop is defined", "w is string", "v == 'a'", "'<' in w", "m.name | length == 1")
_BODY_FILTERS = ("title", "upper", "trim", "indent(1)", "center(9)", "replace('a', w)", "urlize")


class Composer:
    """Makes one template; ``choose`` returns one of several things, the first when in doubt."""

    def __init__(self, choose: Callable[[Sequence[str]], str]) -> None:
        self._pick: Callable[[Sequence[str]], str] = choose

    def template(self) -> str:
        macro = (
            "{% macro mac(t, u='a') %}"
            + self.block(2, inside=True).replace("m.", "messages[0].").replace("mac", "namespace")
            + "{{ caller() if caller }}{% endmacro %}"
        )
        start = "{% set ns = namespace(a='a') %}{% set v = 'a' %}{% set w = messages[0].name %}"
        body = self.block(2) + self.block(1)
        return f"{start}{macro}{{% for m in messages %}}{body}{{% endfor %}}"

    def block(self, depth: int, *, inside: bool = False) -> str:
        text = self.text(2)
        if inside:  # the macro: it has no loop of its own, and does not call itself
            own = ("'%d: %s' % (1, t)", "'%s' | format(t)", "t ~ u", "[varargs, kwargs] | string")
            text = self._pick((text, *own))
        kinds = ("write", "write", "set", "capture", "note", "for", "if", "filter", "call", "with",
                 "escape")  # fmt: skip
        kind = self._pick(kinds) if depth else "write"
        inner = self.block(depth - 1, inside=inside) if kind not in ("write", "set", "note") else ""
        return {
            "write": lambda: f"{{{{ {text} }}}}",
            "set": lambda: f"{{% set {self._pick(('v', 'w'))} = {text} %}}",
            "capture": lambda: f"{{% set v %}}{inner}b{{% endset %}}{{{{ v }}}}",
            "note": lambda: f"{{% set ns.a = {text} %}}",
            "for": lambda: f"{{% for x in {self.many(1)} %}}{inner}{{% endfor %}}",
            "if": lambda: f"{{% if {self._pick(_TESTS)} %}}{inner}{{% else %}}<{{% endif %}}",
            "filter": lambda: f"{{% filter {self._pick(_BODY_FILTERS)} %}}{inner}{{% endfilter %}}",
            "call": lambda: f"{{% call mac({text}) %}}{inner}{{% endcall %}}",
            "with": lambda: f"{{% with x = {text} %}}{inner}{{% endwith %}}",
            "escape": lambda: f"{{% autoescape true %}}{inner}{{% endautoescape %}}",
        }[kind]()

    def text(self, depth: int) -> str:
        """Return an expression that gives text, or nearly."""
        leaves = ("said", "literal")
        kinds = (*leaves, "filter", "filter", "method", "percent", "format", "join", "slice",
                 "object", "either", "concat", "macro", "spread")  # fmt: skip
        match self._pick(kinds if depth else leaves):
            case "literal":
                return self._pick(_LITERALS)
            case "filter":
                return f"({self.any(depth - 1)} | {self._pick(_FILTERS)})"
            case "method":
                return f"({self.text(depth - 1)}).{self._pick(_METHODS)}"
            case "percent":
                return f"({self._filled(self._pick(_PERCENTS), depth)})"
            case "format":
                return f"({self._filled(self._pick(_FIELDS), depth)})"
            case "join":
                return f"({self.many(depth - 1)} | join({self.text(depth - 1)}))"
            case "slice":
                return f"({self.text(depth - 1)})[{self._pick(('1:', '::-1', ':m.n', '0', '::2'))}]"
            case "object":
                how = self._pick(("'%s' | format({})", "'' ~ ({})", "({}) | string", "({}) | title",
                                  "'{{}}'.format({})", "'%s' % ({})", "({}) | pprint",
                                  "({}) | xmlattr", "({}) | center(9)", "'a' | replace('a', {})",
                                  "({}) | tojson", "'%r' | format({})", "({}) | urlencode",
                                  "mac({})", "({}) | join"))  # fmt: skip
                return f"({how.format(self._pick(_OBJECTS))})"
            case "either":
                return (
                    f"({self.text(depth - 1)} if {self._pick(_TESTS)} else {self.text(depth - 1)})"
                )
            case "concat":
                return (
                    f"({self.any(depth - 1)} {self._pick(('~', '~', '+'))} {self.any(depth - 1)})"
                )
            case "macro":
                return f"mac({self.text(depth - 1)})"
            case "spread":
                return (
                    f"({self.many(depth - 1)} | {self._pick(('first', 'last', 'random', 'max'))})"
                )
            case _:
                return self._pick(_SAID)

    def any(self, depth: int) -> str:
        if depth > 0 and self._pick(("text", "text", "text", "object")) == "object":
            return f"({self._pick(_OBJECTS)})"
        return self.text(max(0, depth))

    def many(self, depth: int) -> str:
        return f"({self._filled(self._pick(_LISTS), max(1, depth))})"

    def _filled(self, shape: str, depth: int) -> str:
        return shape.replace("{0}", self.any(depth - 1)).replace(
            "{1}", self.text(max(0, depth - 1))
        )


def tokenizer_of(template: str) -> Tokenizer:
    """Return a tokenizer to which ``>`` is a control token."""
    return Tokenizer(
        tokens=_TOKENS, merges=[], kinds=[1] * 256 + [3], pre="gpt-2", template=template
    )


def forged(template: str, words: Sequence[str]) -> bool:
    """Whether a conversation in which these four words are said has a control token.

    Raises:
        ModelError: The template cannot be run, or is refused.
    """
    one, two, three, four = words
    messages: list[Any] = [
        {"role": "user", "content": one, "name": two, "n": 62, three or "k": [four, {four: 62}]},
        {"role": "other", "content": four, "name": three, "n": 9, "a": {"content": two}},
    ]
    tokenizer = tokenizer_of(template)
    return FORGED in tokenizer.encode(tokenizer.chat(messages, tools=[{"name": four, two: one}]))
