"""The texts that codings are judged on: prose, code and talk, none of which calibrated anything."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from p2pnode.text.tokenizer import Tokenizer

KINDS: Final = ("prose", "code", "chat")

_BETWEEN: Final = "\n%%\n"
_TURN: Final = re.compile(r"^(user|assistant)> ", re.MULTILINE)


def texts(kind: str) -> list[str]:
    """Return the texts of a kind, as they are written in the file."""
    file = files("p2pnode.bench").joinpath("texts", f"{kind}.txt")
    return file.read_text("utf-8").split(_BETWEEN)


def token_lists(tokenizer: Tokenizer, tokens: int) -> list[list[int]]:
    """Return every text's first ids, about ``tokens`` in all."""
    everything = [
        tokenizer.encode(tokenizer.chat(_turns(text)) if kind == "chat" else text)
        for kind in KINDS
        for text in texts(kind)
    ]
    each = -(-tokens // len(everything))
    return [ids[:each] for ids in everything]


def _turns(text: str) -> list[dict[str, str]]:
    parts = _TURN.split(text)[1:]
    return [
        {"role": role, "content": content.strip()}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
