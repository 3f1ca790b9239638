"""How far a text that may go on has begun a word: what to hold back while looking for the word."""

from collections.abc import Sequence
from functools import lru_cache


def overlap(text: str, word: str) -> int:
    """Return how many characters ``text`` ends with that ``word``, which is longer, begins with.

    Work is O(len(word)), whatever the text: by the failure function of Knuth, Morris and Pratt
    (Fast pattern matching in strings, 1977).
    """
    tail = text[-(len(word) - 1) :] if len(word) > 1 else ""
    if word[0] not in tail:
        return 0
    borders = _borders(word)
    matched = 0
    for letter in tail[tail.index(word[0]) :]:
        while matched and word[matched] != letter:
            matched = borders[matched - 1]
        matched += word[matched] == letter
    return matched


@lru_cache(maxsize=64)
def _borders(word: str) -> Sequence[int]:
    """Return, for each beginning of ``word``, how long the longest shorter one is that ends it."""
    borders = [0]
    for letter in word[1:]:
        matched = borders[-1]
        while matched and word[matched] != letter:
            matched = borders[matched - 1]
        borders.append(matched + (word[matched] == letter))
    return borders
