"""Prompts that begin alike nowhere, so that none finds what was computed for another."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from p2pnode.bench.codec_texts import KINDS, texts
from p2pnode.text.tokenizer import Tokenizer

_PIECE = 12  # tokens of one text in a row


class Prompts:
    """Draws prompts from texts, each of its own pieces in its own order."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        """``path`` is the model, whose vocabulary they are in."""
        self._rng = Random(seed)
        self._tokenizer = Tokenizer.from_model(path)
        everything = "\n".join(text for kind in KINDS for text in texts(kind))
        self._ids = self._tokenizer.encode(everything)

    def ids(self, tokens: int) -> list[int]:
        """Return a prompt of so many tokens."""
        found: list[int] = []
        while len(found) < tokens:
            start = self._rng.randrange(len(self._ids) - _PIECE)
            found += self._ids[start : start + _PIECE]
        return found[:tokens]

    def question(self, tokens: int, answer: int) -> dict[str, Any]:
        """Return what asks for an answer of ``answer`` tokens to such a prompt."""
        return {"prompt_ids": self.ids(tokens), "max_tokens": answer, "ignore_eos": True}

    def text(self, tokens: int) -> str:
        """Return a text of about so many tokens."""
        return self._tokenizer.decode(self.ids(tokens))
