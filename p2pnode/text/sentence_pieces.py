"""Plain text to tokens: SentencePiece's BPE, which merges the pair whose token scores highest.

The ``tokenizers`` library cannot do it: there each pair of tokens has its own rank, while here all
pairs that make one token rank alike and the leftmost is merged first.
"""

from collections.abc import Iterator
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import islice
from operator import add
from typing import Final

from p2pnode.text.specials import BYTE, Specials
from p2pnode.text.vocabulary import Vocabulary

SPACE: Final = "\u2581"
"""Stands for a space in the vocabulary."""

_NEVER: Final = float("-inf")
_CACHED_WORDS: Final = 16_384  # some 6 MB; words of ordinary text come again
_CACHED_LETTERS: Final = 32  # of a word that is remembered


class SentencePieces:
    """Cuts text by one vocabulary; no text, however spelled, becomes a control or byte token."""

    def __init__(self, vocabulary: Vocabulary, specials: Specials) -> None:
        self._costs: Final[dict[str, float]] = {}
        self._ids: Final[dict[str, int]] = {}
        self._bytes: Final = [0] * 256
        scored = zip(vocabulary.tokens, vocabulary.kinds, vocabulary.scores, strict=True)
        for token, (text, kind, score) in enumerate(scored):
            if kind == BYTE:
                self._bytes[byte_of(text)] = token
            elif text and not specials.is_control(token):
                self._ids[text] = token
                if score > _NEVER:
                    self._costs[text] = -score
        # No merge joins two letters that stand side by side in no token. That those at the ends of
        # two tokens seem to costs a cut at a NUL, and is four times faster than taking care.
        letters = "\0".join(self._ids)
        self._joined: Final = frozenset(map(add, letters, islice(letters, 1, None)))
        self._remembered: Final = lru_cache(_CACHED_WORDS)(self._ids_of)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; a character without a token becomes its bytes'."""
        ids: list[int] = []
        for word in self._words(text.replace(" ", SPACE)):
            ids += (self._remembered if len(word) <= _CACHED_LETTERS else self._ids_of)(word)
        return ids

    def _words(self, text: str) -> Iterator[str]:
        """Cut ``text`` where nothing can merge, so that each part's tokens are the whole's."""
        start, joined = 0, self._joined
        for at in range(1, len(text)):
            if text[at - 1 : at + 1] not in joined:
                yield text[start:at]
                start = at
        yield text[start:]

    def _ids_of(self, text: str) -> tuple[int, ...]:
        ids: list[int] = []
        at = 0
        for end in _merged(text, self._costs):
            token = self._ids.get(text[at:end])
            if token is None:  # one character
                ids += (self._bytes[byte] for byte in text[at:end].encode())
            else:
                ids.append(token)
            at = end
        return tuple(ids)


def byte_of(text: str) -> int:
    """Return the byte that a byte token such as ``<0x0A>`` stands for."""
    return int(text[3:5], 16)


def _merged(text: str, costs: dict[str, float]) -> list[int]:
    """Merge neighbours while any pair is a token, the cheapest first, of equals the leftmost.

    Pairs wait by what they cost, in heaps of where they begin: long texts have far more pairs than
    costs, and one heap of (cost, begin) takes twice the time.

    Returns:
        Where each part ends.
    """
    size, cost_of, pop, push = len(text), costs.get, heappop, heappush
    ends = [*range(1, size + 1)]  # of the part that begins here; -1: none does
    previous = [*range(-1, size - 1)]  # where the part before the one that begins here begins
    waiting: dict[float, list[int]] = {}
    for at in range(size - 1):
        if (cost := cost_of(text[at : at + 2])) is not None:
            waiting.setdefault(cost, []).append(at)
    cheapest = list(waiting)  # each cost once
    heapify(cheapest)
    while cheapest:
        now = cheapest[0]
        if not waiting[now]:
            del waiting[pop(cheapest)]
            continue
        left = pop(waiting[now])
        right = ends[left]
        if not 0 <= right < size:
            continue
        end = ends[right]
        if cost_of(text[left:end]) != now:
            continue  # another pair begins here by now
        ends[left], ends[right] = end, -1
        for begin, stop in ((previous[left], end), (left, ends[end] if end < size else -1)):
            if begin < 0 or stop < 0 or (cost := cost_of(text[begin:stop])) is None:
                continue
            if cost in waiting:
                push(waiting[cost], begin)
            else:
                waiting[cost] = [begin]
                push(cheapest, cost)
        if end < size:
            previous[end] = left
    found, at = [], 0
    while at < size:
        at = ends[at]
        found.append(at)
    return found
