"""Plain text to tokens: byte-level BPE, merged by the ``tokenizers`` library."""

import re
from collections.abc import Iterator
from typing import Final

from p2pnode.errors import ModelError
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.specials import Specials
from p2pnode.text.vocabulary import Vocabulary

PIECE: Final = 65_536
"""Characters given to the library at once: it takes some 300 bytes for each."""

# Before a lone space that a word follows, and between a word and its punctuation: there every
# pre-tokenizer that is known starts anew, whatever stands on either side.
_CUT: Final = re.compile(
    r"(?<=\S)(?= [A-Za-z])|(?<=[^\W_])(?=[!-&(-/:-@\[-^`{-~\u3001\u3002\uff01\uff0c])"
)


class Bpe:
    """Cuts text by one vocabulary; no text, however spelled or merged, becomes a control token."""

    def __init__(self, vocabulary: Vocabulary, specials: Specials) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.normalizers import NFC

        plain = {
            text: token
            for token, text in enumerate(vocabulary.tokens)
            if not specials.is_control(token)
        }
        merges = [
            (left, right)
            for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)
            if left in plain and right in plain and left + right in plain
        ]
        known = PRE_TOKENIZERS[vocabulary.pre]
        try:
            self._bpe: Final = Tokenizer(BPE(plain, merges, ignore_merges=known.words_whole))
        except Exception as error:  # the library raises bare Exception for a broken vocabulary
            raise ModelError(f"the model's vocabulary is broken: {error}") from error
        self._bpe.pre_tokenizer = known.cutter()
        if known.composed:
            self._bpe.normalizer = NFC()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; characters that the vocabulary lacks are left out."""
        ids: list[int] = []
        for piece in pieces(text):
            ids += self._bpe.encode(piece, add_special_tokens=False).ids
        return ids


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Cut ``text`` into pieces of about ``size`` characters, where any pre-tokenizer cuts as well.

    So the pieces' tokens are those of the whole.
    """
    at = 0
    while len(text) - at > size and (cut := _CUT.search(text, at + size)):
        yield text[at : cut.start()]
        at = cut.start()
    yield text[at:]
