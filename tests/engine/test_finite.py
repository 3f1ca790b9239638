"""Weights that are no numbers are found in every type, and nothing else is."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from p2pnode.engine.finite import check_weights
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorType
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

KINDS = [kind for kind in TENSOR_TYPES.values() if kind.name != "MXFP4"]


def is_refused(kind: str, data: bytes) -> bool:
    try:
        check_weights("w", kind, data)
    except ModelError:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_expands_to_no_number_is_refused_and_nothing_else(kind: TensorType) -> None:
    rng = np.random.default_rng(kind.code)
    seen = set[bool]()
    for _ in range(300):
        count = int(rng.integers(1, 4))
        stored = rng.integers(0, 256, (1, count * kind.size), np.uint8)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            numbers = dequantize(stored, GGMLQuantizationType(kind.code))
        expected = not np.isfinite(numbers).all()
        assert is_refused(kind.name, stored.tobytes()) == expected
        seen.add(expected)
    assert seen == ({False} if kind.name == "NVFP4" else {False, True})


def test_a_scale_of_mxfp4_may_be_none() -> None:
    for first, expected in ((254, False), (255, True), (0, False)):
        assert is_refused("MXFP4", bytes([127] * 17 + [first] + [0] * 16)) == expected


def test_the_last_number_of_many_is_looked_at() -> None:
    stored = np.zeros(2**20 + 1, np.float32)
    assert not is_refused("F32", stored.tobytes())
    stored[-1] = np.nan
    assert is_refused("F32", stored.tobytes())
    assert not is_refused("F32", b"")


@pytest.mark.parametrize("engine", ["auto", "numpy"])
@pytest.mark.parametrize(
    "name",
    ["blk.1.attn_norm.weight", "blk.0.ffn_up.weight", "output_norm.weight", "token_embd.weight"],
)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_such_a_file_is_refused_when_it_is_loaded(
    tmp_path: Path, engine: str, name: str, value: float
) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path, n_layers=2)
    with GgufFile(path) as file:
        info = file.tensors[name]
    with path.open("r+b") as stored:
        stored.seek(info.offset)
        kind = {"F32": np.float32}.get(info.type.name, np.float16)
        stored.write(np.array([value], kind).tobytes())
    with GgufFile(path) as file:
        tree = hash_file(file)
    options = EngineOptions(engine)
    with pytest.raises(ModelError, match=f"{name} are not all numbers"):
        load_engine(path, range(2), options, tree=tree)
