"""Broken files are refused in words; whole ones are read as gguf reads them."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.gguf import read_model_info, read_tensor
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TENSOR_TYPES
from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.wire.capability import space_hash32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def test_the_table_of_types_is_that_of_gguf() -> None:
    """Every type whose size it knows and whose blocks it can dequantise, and no other."""
    theirs = {
        kind.value: (kind.name, block, size)
        for kind, (block, size) in gguf.GGML_QUANT_SIZES.items()
        if _is_dequantised(kind, size)
    }
    ours = {code: (kind.name, kind.block, kind.size) for code, kind in TENSOR_TYPES.items()}
    assert ours == theirs


def _is_dequantised(kind: gguf.GGMLQuantizationType, size: int) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def test_a_file_says_what_model_it_holds(tiny: Path) -> None:
    info = read_model_info(tiny)
    assert (info.arch, info.n_layers, info.d_model, info.n_heads) == ("llama", 4, 64, 4)
    assert (info.n_kv_heads, info.head_dim, info.context_length) == (2, 16, 256)
    assert info.vocab_size == 261
    assert info.eos_ids == (257,)
    assert info.kv_bytes_per_token_layer == 2 * 2 * 16 * 4
    assert info.space_hash32 == space_hash32(info.space_id, "llama", info.data_sig)


def test_two_files_that_differ_are_two_spaces(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_tiny_gguf(other, seed=1)
    assert read_model_info(other).space_hash32 != read_model_info(tiny).space_hash32


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_every_type_is_read_as_gguf_reads_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, tensor_type=kind, n_layers=1)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with GgufFile(path) as file:
        ours = read_tensor(file, "blk.0.ffn_down.weight", (64, 128))
    tensor = theirs["blk.0.ffn_down.weight"]
    expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    np.testing.assert_array_equal(ours, expected)
    error = np.abs(ours - expected_weight()).max()
    assert error < {"F32": 1e-7, "F16": 1e-3, "BF16": 2e-3, "Q8_0": 3e-3}.get(kind, 0.1)


def expected_weight() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Draw what the writer drew before ``ffn_down``, in its order."""
    rng = np.random.default_rng(0)
    norm = 0
    for rows in (261, norm, 64, 32, 32, 64, norm, 128, 128):
        if rows == norm:
            rng.uniform(0.5, 1.5, 64)
        else:
            rng.standard_normal((rows, 64), np.float32)
    return rng.standard_normal((64, 128), np.float32) / np.float32(np.sqrt(128))


@given(st.data())
def test_a_truncated_file_is_refused_wherever_it_was_cut(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = tiny.read_bytes()
    with GgufFile(tiny) as file:  # behind its last tensor there may be zeros that nobody misses
        end = max(tensor.offset + tensor.size for tensor in file.tensors.values())
    cut = data.draw(st.integers(0, end - 1))
    path = tmp_path_factory.getbasetemp() / "cut.gguf"
    path.write_bytes(whole[:cut])
    with pytest.raises(ModelError):
        read_model_info(path)


@given(st.data())
def test_a_damaged_header_gives_one_kind_of_error(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(tiny.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 6000))
        damaged[at : at + 1] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(damaged)
    try:
        read_model_info(path)
    except ModelError:
        return


@given(st.binary(max_size=200))
def test_anything_else_is_not_a_model(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_model_info(path)
    path.write_bytes(b"GGUF" + content)
    with pytest.raises(ModelError):
        read_model_info(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*nothing\.gguf"):
        read_model_info(tmp_path / "nothing.gguf")


def test_a_truncated_file_says_so(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny.read_bytes()[:-100])
    with pytest.raises(ModelError, match="truncated") as caught:
        read_model_info(path)
    assert "fetch the file again" in caught.value.hint


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    write_tiny_gguf(path, arch="mamba")
    with pytest.raises(ModelError, match="'mamba'"):
        read_model_info(path)


def test_an_unknown_quantisation_is_named(tiny: Path, tmp_path: Path) -> None:
    data = bytearray(tiny.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8  # past the number of dimensions and two of them
    assert data[at] == gguf.GGMLQuantizationType.Q8_0
    data[at] = 77
    path = tmp_path / "odd.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"attn_q.*type 77") as caught:
        read_model_info(path)
    assert "Q4_1" in caught.value.hint
