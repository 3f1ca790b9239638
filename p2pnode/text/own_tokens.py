"""The tokens of one's own answers, for conversations that quote them.

What a model wrote and what the tokenizer makes of the same text are often other tokens. A chat's
next turn quotes the answer as text; cut anew, it would no longer begin like the last one, and
whatever was computed for that would be of no use. So a prompt is given the tokens of an earlier
answer back wherever its text is the same: between two control tokens, byte for byte. Those must be
the same ones at the same places, so nothing that was said can become one.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from p2pnode.text.detokenizer import Detokenizer

MOST_ANSWERS: Final = 64
"""Conversations remembered: a household's. A guess."""

MOST_TOKENS: Final = 1 << 18
"""Tokens of all of them, 1 MiB."""

_Number = TypeVar("_Number", np.uint8, np.uint32)
_TRIED: Final = 4  # of those that begin alike, the newest so many are looked at


class OwnTokens:
    """Prompts with the answers to them, the least recently used first; bounded."""

    def __init__(self, most_answers: int = MOST_ANSWERS, most_tokens: int = MOST_TOKENS) -> None:
        self._most_answers = most_answers
        self._most_tokens = most_tokens
        self._known: OrderedDict[bytes, NDArray[np.uint32]] = OrderedDict()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._known)

    def note(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Remember an answer, and with it all that its prompt quoted of earlier ones."""
        if not answer:
            return
        ids = np.asarray((*prompt, *answer), np.uint32)
        key = ids.tobytes()
        self._forget(key)
        self._forget(ids[: len(prompt)].tobytes())  # the last turn, where nothing was said since
        self._known[key] = ids
        self.tokens += len(ids)
        while len(self._known) > self._most_answers or self.tokens > self._most_tokens:
            self._forget(next(iter(self._known)))

    def restored(
        self, ids: Sequence[int], detokenizer: Detokenizer, context: int
    ) -> tuple[int, ...]:
        """Return ``ids``, cut as they were when this node wrote them; the text is the same.

        Where that would be ``context`` tokens or more, they stay as they are.
        """
        asked = np.asarray(ids, np.uint32)
        alike = [(_common(asked, known), key) for key, known in self._known.items()]
        most = max((count for count, _ in alike), default=0)
        best, reached, used = tuple(ids), most, b""
        for key in [key for count, key in reversed(alike) if count == most > 0][:_TRIED]:
            known = self._known[key].tolist()
            found, agreed = recut(asked.tolist(), known, most, detokenizer)
            if len(found) < context and (agreed > reached or not used):
                best, reached, used = found, agreed, key
        if used:
            self._known.move_to_end(used)
        return best

    def _forget(self, key: bytes) -> None:
        known = self._known.pop(key, None)
        self.tokens -= 0 if known is None else len(known)


def recut(
    ids: list[int], known: list[int], common: int, detokenizer: Detokenizer
) -> tuple[tuple[int, ...], int]:
    """Give ``ids`` the tokens of ``known`` as far as both say the same.

    ``common`` is how many ids both begin with. Also return how many of the tokens returned are
    those of ``known``.
    """
    while common and not detokenizer.is_control(ids[common - 1]):
        common -= 1  # to behind a control token: text is compared from there on
    made, at, theirs = ids[:common], common, common
    while at < len(ids) and theirs < len(known):
        end, their_end = _end(ids, at, detokenizer), _end(known, theirs, detokenizer)
        after = made[-1] if made else None
        taken, their_taken = _same(ids[at:end], known[theirs:their_end], after, detokenizer)
        made += known[theirs : theirs + their_taken]
        at, theirs = at + taken, theirs + their_taken
        if at < end or theirs < their_end or ids[at : at + 1] != known[theirs : theirs + 1]:
            break
        made += ids[at : at + 1]  # the control token that ends both
        at, theirs = at + 1, theirs + 1
    return (*made, *ids[at:]), len(made)


def _end(ids: list[int], start: int, detokenizer: Detokenizer) -> int:
    """Return where the next control token is, or the end."""
    for at in range(start, len(ids)):
        if detokenizer.is_control(ids[at]):
            return at
    return len(ids)


def _same(
    text: list[int], theirs: list[int], after: int | None, detokenizer: Detokenizer
) -> tuple[int, int]:
    """Return how many tokens of each say the same, to the last border that both have.

    At a border both go on alike: a space that nobody wrote may follow on both, or on neither.
    """
    said, their_said = _spelled(text, after, detokenizer), _spelled(theirs, after, detokenizer)
    if b"".join(said) == b"".join(their_said):
        return len(text), len(theirs)  # what follows here is a control token, or nothing
    agreed = _common(_bytes(said), _bytes(their_said))
    ends = accumulate(map(len, said), initial=0)
    last = (after, *text)
    borders = {
        (end, detokenizer.ends_text(token)): number
        for number, (end, token) in enumerate(zip(ends, last, strict=True))
    }
    found, their_end = (0, 0), 0
    for number, (token, spelled) in enumerate(zip(theirs, their_said, strict=True), 1):
        their_end += len(spelled)
        if their_end > agreed:
            break
        border = borders.get((their_end, detokenizer.ends_text(token)))
        if border is not None:
            found = border, number
    return found


def _spelled(ids: list[int], after: int | None, detokenizer: Detokenizer) -> list[bytes]:
    """Return the bytes of each token of a text; a space that nobody wrote is none of them."""
    spelled: list[bytes] = []
    for token in ids:
        data = detokenizer.bytes_of(token)
        starts = detokenizer.ends_text(after) and detokenizer.in_text(token)
        spelled.append(data.removeprefix(b" ") if starts else data)
        after = token
    return spelled


def _bytes(spelled: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(spelled), np.uint8)


def _common(one: NDArray[_Number], other: NDArray[_Number]) -> int:
    """Return how many items both begin with."""
    count = min(len(one), len(other))
    differs = one[:count] != other[:count]  # [count]
    return int(differs.argmax()) if differs.any() else count
