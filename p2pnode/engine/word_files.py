"""The files of a checkpoint that say how text becomes tokens, as they are stored."""

import hashlib
import struct
from dataclasses import astuple, dataclass
from typing import Final

TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
TEMPLATE: Final = "chat_template.jinja"
GENERATION: Final = "generation_config.json"

MOST_BYTES: Final = {
    TOKENIZER: 96 * 2**20,  # Gemma's has 33 MB
    TOKENIZER_CONFIG: 8 * 2**20,  # Llama's have 50 kB; some list a thousand tokens again
    TEMPLATE: 2**20,
    GENERATION: 2**20,
}
"""The largest that are read."""


@dataclass(frozen=True, slots=True)
class WordFiles:
    """What a checkpoint says of its words.

    Attributes:
        name: What the checkpoint is called.
        tokenizer: Its tokenizer.json.
        config: Its tokenizer_config.json; empty where there is none.
        template: Its chat_template.jinja; empty likewise.
        vocab_size: Rows of its embedding; tokens may be fewer.
        bos: Id of the token that begins a text, by config.json, or None.
        ends: Ids that end an answer, by config.json and generation_config.json.
    """

    name: str
    tokenizer: bytes
    config: bytes
    template: bytes
    vocab_size: int
    bos: int | None
    ends: tuple[int, ...]

    def hash(self) -> bytes:
        """Return the 32 bytes that stand for them; the name does not count."""
        found = hashlib.sha256()
        for part in astuple(self)[1:]:
            data = part if isinstance(part, bytes) else repr(part).encode()
            found.update(struct.pack("<Q", len(data)) + data)
        return found.digest()
