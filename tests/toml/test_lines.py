"""On which line each key of a TOML file stands."""

import tomllib

import pytest
from hypothesis import given, strategies as st

from p2pnode.toml.lines import KeyLines

LINES = """# a comment = not a key
title = "x = 1"
seeds = [
  1, # one
  2,
]
text = '''
mtu = 3
'''

[link]
mtu = 1
"quoted" = 2
a.b = 3
inline = { c = 1,
} # of TOML 1.1
[[weather]]
loss = 1
[[weather]]
loss = 2
[weather.bursts]
p = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("title", 2),
        ("seeds", 3),
        ("text", 7),
        ("link", 11),
        ("link.mtu", 12),
        ("link.quoted", 13),
        ("link.a.b", 14),
        ("link.inline.c", 15),
        ("link.absent", 11),
        ("weather", 17),
        ("weather[0].loss", 18),
        ("weather[1].loss", 20),
        ("weather[1].bursts.p", 22),
        ("weather[1].absent", 19),
        ("absent", None),
    ],
)
def test_the_line_of_each_key_is_found(path: str, line: int | None) -> None:
    assert KeyLines(LINES).line_of(path) == line


@given(st.text(max_size=300), st.text(max_size=20))
def test_lines_of_any_text_are_looked_for_without_an_error(text: str, path: str) -> None:
    KeyLines(text).line_of(path)


KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(
    tables=st.dictionaries(KEYS, st.lists(KEYS, unique=True, max_size=4), max_size=4),
    gaps=st.lists(st.sampled_from(["", "# a = 1", "   "]), max_size=3),
    style=st.sampled_from(["header", "dotted"]),
)
def test_every_key_of_any_spelling_is_found_where_it_was_written(
    tables: dict[str, list[str]], gaps: list[str], style: str
) -> None:
    written: list[str] = []
    expected: dict[tuple[str, str], int] = {}
    for name, keys in tables.items():
        if style == "header":
            written += [*gaps, f"[{quoted(name)}]"]
        for key in keys:
            front = f"{quoted(name)} . " if style == "dotted" else ""
            written += [*gaps, f"{front}{quoted(key)} = '''", "no = 'key'", "'''"]
            expected[name, key] = len(written) - 2
    text = "\n".join(written)
    tomllib.loads(text)
    lines = KeyLines(text)
    paths = [f"{name}.{key}" for name, key in expected]
    for (name, key), line in expected.items():
        path = f"{name}.{key}"
        if paths.count(path) == 1 and path not in tables and "[" not in path:
            assert lines.line_of(path) == line, text


def quoted(key: str) -> str:
    """Return a key in quotes, each letter beyond the plainest escaped."""
    return (
        '"'
        + "".join(one if one.isascii() and one.isalnum() else f"\\U{ord(one):08x}" for one in key)
        + '"'
    )
