"""Markdown as it streams: what it shows, and that no cutting of a text shows anything else."""

import pytest
from hypothesis import given, strategies as st

from p2pnode.interfaces.chat.markdown import LONGEST, Markdown, Style

SIGNS = ("*", "**", "***", "_", "`", "``", "```", "\n", " ", "a", "b", "1. ", "# ", "- ", "> ")
MORE = ("\\", "~~~", "---", "x" * 150, "\n```\n", "*" * 6, "`" * 25, "\u00e9", "\t")
TEXTS = st.lists(st.sampled_from(SIGNS + MORE), max_size=25).map("".join) | st.text(max_size=40)


def shown(*cuts: str) -> list[tuple[str, Style]]:
    markdown, merged = Markdown(), list[tuple[str, Style]]()
    pieces = [piece for cut in cuts for piece in markdown.push(cut)] + markdown.finish()
    for text, style in pieces:
        if merged and merged[-1][1] == style:
            merged[-1] = (merged[-1][0] + text, style)
        elif text:
            merged.append((text, style))
    return merged


def words(text: str) -> str:
    return "".join(piece for piece, _ in shown(text))


@given(TEXTS, st.data())
def test_no_cutting_shows_anything_else(text: str, data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    cuts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert shown(*cuts) == shown(text)
    assert shown(*text) == shown(text)


@given(TEXTS)
def test_no_letter_is_lost(text: str) -> None:
    rest = iter(words(text))
    assert all(letter in rest for letter in text if letter.isalnum() or letter == "\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a **b** c", [("a ", 0), ("b", Style.BOLD), (" c", 0)]),
        ("*b*", [("b", Style.ITALIC)]),
        ("***b***", [("b", Style.BOLD | Style.ITALIC)]),
        ("__b__", [("b", Style.BOLD)]),
        ("`a*b*`", [("a*b*", Style.CODE)]),
        ("**a `b`**", [("a ", Style.BOLD), ("b", Style.BOLD | Style.CODE)]),
        ("# Hi", [("Hi", Style.HEADING)]),
        ("- a\n  * b", [("\u2022 a\n  \u2022 b", 0)]),
        ("```\n*x*\n```", [("```", 16), ("\n", 0), ("*x*", 4), ("\n", 0), ("```", 16)]),
        ("> a", [("\u2502 ", Style.FAINT), ("a", 0)]),
        ("snake_case_name", [("snake_case_name", 0)]),
        ("2 * 3 * 4", [("2 * 3 * 4", 0)]),
        ("\\*a\\*", [("*a*", 0)]),
        ("*open", [("*open", 0)]),
        ("#hash", [("#hash", 0)]),
    ],
)  # fmt: skip
def test_what_signs_mean(text: str, expected: list[tuple[str, int]]) -> None:
    assert shown(text) == [(piece, Style(style)) for piece, style in expected]


def test_a_span_that_does_not_close_is_held_no_longer_than_it_may_be() -> None:
    markdown = Markdown()
    pieces = markdown.push("**" + "x" * (2 * LONGEST))
    assert "".join(text for text, _ in pieces) == "**" + "x" * (2 * LONGEST)


def test_words_without_signs_are_shown_at_once() -> None:
    assert Markdown().push("Hello wor") == [("Hello wor", Style.PLAIN)]
