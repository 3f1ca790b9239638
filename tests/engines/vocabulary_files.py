"""Files of nothing but a vocabulary, and llama.cpp's tokens for them."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from gguf import GGUFWriter

_CHILD: Final = Path(__file__).with_name("libllama_tokens.py")
_NAMES: Final = {"kinds": "token_type", "bos": "bos_token_id", "eos": "eos_token_id"}


def write_vocabulary(path: Path, fields: Mapping[str, Any]) -> Path:
    """Write the fields of a ``Vocabulary`` as a model's file has them."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(fields.get("kind", "gpt2"))
    writer.add_tokenizer_pre(fields["pre"] or "default")
    writer.add_token_list(list(fields["tokens"]))
    writer.add_token_types(list(fields["kinds"]))
    if fields["merges"]:
        writer.add_token_merges(list(fields["merges"]))
    if fields.get("scores"):
        writer.add_token_scores(list(fields["scores"]))
        writer.add_add_space_prefix(fields["space_prefix"])
    if fields.get("bos") is not None:
        writer.add_bos_token_id(fields["bos"])
    if fields.get("eos") is not None:
        writer.add_eos_token_id(fields["eos"])
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def libllama_tokens(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return llama.cpp's ids of each text, or skip the test where it is not installed."""
    _ = find_spec("xllamacpp") or pytest.skip("xllamacpp is not installed: make test-engines")
    done = subprocess.run(
        [sys.executable, str(_CHILD)],
        input=json.dumps({"model": str(path), "texts": list(texts)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found: list[list[int]] = json.loads(done.stdout)
    return found
