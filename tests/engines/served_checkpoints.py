"""Tiny checkpoints with a tokenizer, as transformers saves them."""

from pathlib import Path
from typing import Any

import transformers

from p2pnode.text.vocabulary import Vocabulary
from tests.engines.checkpoints import build
from tests.engines.recipes import RECIPES, VOCAB_SIZE
from tests.text.test_families import LETTERS
from tests.text.tokenizer_files import library_of

_PAIRS = ("th", "he", "in", "er", "an")
WORDS = Vocabulary(
    tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, *_PAIRS],
    kinds=[3, 3, 3, *[1] * (256 + len(_PAIRS))],
    merges=[f"{pair[0]} {pair[1]}" for pair in _PAIRS],
    pre="smollm",
    bos=0,
    eos=0,
    ends=(0,),
)
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
assert len(WORDS.tokens) < VOCAB_SIZE  # padded, as most are


def save(name: str, folder: Path, shard: str = "1MB") -> Any:
    """Save a model of this recipe and its tokenizer; return the model."""
    model = build(next(one for one in RECIPES if one.name == name))
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder, max_shard_size=shard)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library_of(WORDS), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return model
