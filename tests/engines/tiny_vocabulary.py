"""A vocabulary of some hundreds of tokens that llama.cpp and p2pnode both accept."""

from itertools import product
from typing import Any, Final

from tests.engines.recipes import VOCAB_SIZE

CONTROL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NORMAL_TYPE, _CONTROL_TYPE = 1, 3


def add_vocabulary(writer: Any) -> None:
    """Give a GGUF writer a byte-level BPE vocabulary of ``VOCAB_SIZE`` tokens."""
    alphabet = _byte_alphabet()
    pairs = [left + right for left, right in product("etaoinshr", repeat=2)]
    pairs = pairs[: VOCAB_SIZE - len(CONTROL) - len(alphabet)]
    tokens = [*CONTROL, *alphabet, *pairs]
    kinds = [_CONTROL_TYPE] * len(CONTROL) + [_NORMAL_TYPE] * (len(alphabet) + len(pairs))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{pair[0]} {pair[1]}" for pair in pairs])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def _byte_alphabet() -> list[str]:
    """Return GPT-2's printable stand-ins, by byte: what cannot be seen moves to 256 and on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]
