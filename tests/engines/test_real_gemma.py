"""The real Gemma 3 270M, as its package has it, computes what llama.cpp does: English, and windows.

The tiny models beside this have random weights; here the file's own metadata says where the
windows are, and real text shows what a mistake would cost.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.solo import answer_alone
from p2pnode.errors import UserError
from p2pnode.node.models import resolve
from p2pnode.text.tokenizer import Tokenizer
from tests.engines.gguf_files import Floats
from tests.engines.libllama import Libllama

if importlib.util.find_spec("xllamacpp") is None:
    pytest.skip("needs xllamacpp: make test-engines", allow_module_level=True)

ENGLISH: Final = (
    "The lighthouse stood on a narrow point of rock, two miles from the village, and for most of "
    "the year nobody went there but the keeper and the boy who brought his bread. In the autumn of "
    "1911, when the storms came early, the boy found the door open and the lamp burning in the "
    "middle of the day. He called up the stairs, and then he climbed them, counting as he always "
    "did, one hundred and twelve steps. On the table there was a cup of tea, still warm, and the "
    "log book, in which the last line had not been finished. "
)
PROMPT: Final = "Monday, Tuesday, Wednesday,"
LONG: Final = 640  # tokens: more than the window of 512 that five layers of six have


@pytest.fixture(scope="module")
def path() -> Path:
    try:
        return resolve("gemma3-270m")
    except UserError as error:
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture(scope="module")
def engine(path: Path) -> Iterator[GgmlEngine]:
    (library,) = [
        one for one in find_library(None).candidates if one.provider.name.startswith("libggml")
    ]
    with GgufFile(path) as file:
        tree = hash_file(file)
    loaded = load_ggml(library, path, range(18), tree, kv_budget_bytes=1 << 28)
    yield loaded
    loaded.shut()


@pytest.fixture(scope="module")
def ids(path: Path) -> list[int]:
    return Tokenizer.from_model(path).encode(ENGLISH * 8)


@pytest.fixture(scope="module")
def llama() -> Iterator[Libllama]:
    with Libllama() as process:
        yield process


def logits_of(engine: GgmlEngine, ids: list[int], rows: slice) -> Floats:
    """Return the logits of ``rows`` [rows, vocab], read in the chunks that a chain uses."""
    found = []
    for start in range(0, len(ids), 64):
        batch = np.array(ids[start : start + 64], np.int64)
        found += engine.forward(b"s", engine.layers, [batch], start)
    engine.close(b"s")
    return engine.logits(np.concatenate(found)[rows])


def log_probabilities(logits: Floats) -> Any:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("rows", [slice(110), slice(LONG - 60, LONG)], ids=["english", "window"])
def test_english_has_the_probabilities_that_llama_cpp_gives_it(
    rows: slice,
    path: Path,
    engine: GgmlEngine,
    ids: list[int],
    llama: Libllama,
    record_property: Any,
) -> None:
    read = ids[: rows.stop]
    ours = log_probabilities(logits_of(engine, read, rows))
    theirs = log_probabilities(llama.logits(path, read, n_ctx=1024, flash=True, kv="f16")[rows])
    kl = float((np.exp(theirs) * (theirs - ours)).sum(axis=-1).mean())
    same = float((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).mean())
    record_property("figures", f"kl {kl:.1e}, argmax {same:.3f} on {len(ours)} tokens")
    assert kl < 1e-2
    assert same > 0.9


def test_a_known_sentence_goes_on_as_llama_cpp_would(
    path: Path, engine: GgmlEngine, llama: Libllama
) -> None:
    tokenizer = Tokenizer.from_model(path)
    prompt = tokenizer.encode(PROMPT)
    answer = answer_alone(engine, prompt, 12).token_ids
    assert tokenizer.decode(answer).startswith(" Thursday, Friday, Saturday, Sunday")
    logits = llama.logits(path, [*prompt, *answer[:-1]], n_ctx=512, flash=True, kv="f16")
    assert logits[len(prompt) - 1 :].argmax(axis=-1).tolist() == list(answer)
