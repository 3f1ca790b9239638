"""Special tokens are found leftmost, then longest; control ones where the template wrote them."""

from hypothesis import given, strategies as st

from p2pnode.text.marked import DATA, TEMPLATE, Marked
from p2pnode.text.specials import CONTROL, USER_DEFINED, Specials

spellings = st.lists(st.text("ab<", min_size=1, max_size=4), unique=True, max_size=8)
marked = st.lists(st.tuples(st.sampled_from("ab<"), st.sampled_from((TEMPLATE, DATA))), max_size=24)


def slowly(
    tokens: list[str], kinds: list[int], text: str, start: int, end: int, *, control: bool
) -> list[tuple[int, int]]:
    """Return (start, token) of what counts in a part of a text, trying each at each place."""
    found = []
    while start < end:
        here = [
            (len(spelled), token)
            for token, spelled in enumerate(tokens)
            if text.startswith(spelled, start)
            and start + len(spelled) <= end
            and (control or kinds[token] == USER_DEFINED)
        ]
        if here:
            length, token = max(here)
            found.append((start, token))
            start += length
        else:
            start += 1
    return found


@given(spellings, st.integers(0, 255), marked)
def test_the_leftmost_and_longest_counts(
    tokens: list[str], which: int, letters: list[tuple[str, bytes]]
) -> None:
    kinds = [CONTROL if which >> token & 1 else USER_DEFINED for token in range(len(tokens))]
    text = "".join(letter for letter, _ in letters)
    marks = b"".join(mark for _, mark in letters)
    written: list[tuple[int, int]] = []
    at = 0
    while at < len(marks):
        end = at
        while end < len(marks) and marks[end] == marks[at]:
            end += 1
        if marks[at : at + 1] == TEMPLATE:
            written += slowly(tokens, kinds, text, at, end, control=True)
        at = end
    expected, at = [], 0
    for start, token in written:
        expected += slowly(tokens, kinds, text, at, start, control=False)
        expected.append((start, token))
        at = start + len(tokens[token])
    expected += slowly(tokens, kinds, text, at, len(text), control=False)
    found = [(one.start, one.token) for one in Specials(tokens, kinds).find(Marked(text, marks))]
    assert found == expected
