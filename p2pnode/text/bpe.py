"""Plain text to tokens: byte-level BPE, merged by the ``tokenizers`` library."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2pnode.errors import ModelError
from p2pnode.text.specials import Specials
from p2pnode.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer


class Bpe:
    """Cuts text by one vocabulary; no text, however spelled or merged, becomes a control token."""

    def __init__(self, vocabulary: Vocabulary, specials: Specials) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE

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
        try:
            self._bpe: Final = Tokenizer(BPE(plain, merges))
        except Exception as error:  # the library raises bare Exception for a broken vocabulary
            raise ModelError(f"the model's vocabulary is broken: {error}") from error
        self._bpe.pre_tokenizer = _pre_tokenizer(vocabulary.pre)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; characters that the vocabulary lacks are left out."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids


def _pre_tokenizer(name: str) -> "PreTokenizer":
    """Return how text is cut before merging; a wrong cut gives wrong tokens silently."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence as Chain

    known: dict[str, Callable[[], PreTokenizer]] = {
        "smollm": lambda: Chain(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        ),
        "gpt-2": lambda: ByteLevel(add_prefix_space=False),
    }
    return known[name]()
