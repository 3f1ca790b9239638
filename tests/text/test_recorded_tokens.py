"""Text is cut as the makers' patterns cut it, and pieces merge as llama.cpp merges them.

``python -m tests.engines.record`` wrote what is compared with; ``make test-engines`` compares with
the real vocabularies.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.tokenizer import Tokenizer
from tests.text.small_pieces import CONTROL, fields

RECORDED: dict[str, Any] = json.loads(
    Path(__file__).with_name("recorded_tokens.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", RECORDED["pieces"])
def test_text_is_cut_as_the_makers_pattern_says(name: str) -> None:
    cutter = PRE_TOKENIZERS[name].cutter()
    for text, sizes in zip(RECORDED["texts"], RECORDED["pieces"][name], strict=True):
        found = [end - start for _, (start, end) in cutter.pre_tokenize_str(text)]
        assert found == sizes, ascii(text)


def test_every_cut_that_differs_was_recorded() -> None:
    recorded = {PRE_TOKENIZERS[name].patterns for name in RECORDED["pieces"]}
    assert {one.patterns for one in PRE_TOKENIZERS.values()} == recorded


def test_pieces_merge_as_llama_cpp_merges_them() -> None:
    """Where no text spells a control or byte token: llama.cpp merges letters into these as well."""
    small = Tokenizer(**fields())
    for text, ids in zip(RECORDED["texts"], RECORDED["ids"], strict=True):
        if any(spelled in text for spelled in (*CONTROL, "<0x")):
            continue
        assert small.encode(text) == ids, ascii(text)
