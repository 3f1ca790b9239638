"""A tree of hashes stands for what is computed, and for nothing else."""

import hashlib
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine import hash_tree
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TensorInfo
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tree") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def tree_of(path: Path) -> HashTree:
    with GgufFile(path) as file:
        return hash_file(file)


def test_the_root_is_what_the_page_says(tiny: Path) -> None:
    """By the words of the module alone, with the reader of the gguf package."""
    reader = gguf.GGUFReader(tiny)

    def text(data: str) -> bytes:
        return struct.pack("<I", len(data)) + data.encode()

    pairs = {}
    for key, field in reader.fields.items():
        if key == "general.architecture" or key.startswith("llama."):
            value = field.contents()
            if isinstance(value, str):
                pairs[key] = b"s" + text(value)
            elif isinstance(value, float):
                pairs[key] = b"f" + struct.pack("<d", value)
            else:
                pairs[key] = b"i" + text(str(value))
    metadata = hashlib.sha256(b"".join(text(key) + pairs[key] for key in sorted(pairs))).digest()
    leaves = b""
    for tensor in sorted(reader.tensors, key=lambda one: one.name):
        dims = [int(size) for size in tensor.shape]
        head = struct.pack(f"<II{len(dims)}Q", tensor.tensor_type.value, len(dims), *dims)
        leaves += hashlib.sha256(text(tensor.name) + head + tensor.data.tobytes()).digest()
    root = hashlib.sha256(b"p2pnode model 1\0" + metadata + leaves).hexdigest()
    assert tree_of(tiny).root == root


def test_what_changes_no_arithmetic_changes_no_root(tiny: Path, tmp_path: Path) -> None:
    def rename(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0]["general.name"].value = "another name"
        writer.kv_data[0].pop("tokenizer.chat_template")
        writer.data_alignment = 64
        writer.add_custom_alignment(64)

    other = tmp_path / "renamed.gguf"
    write_tiny_gguf(other, edit=rename)
    assert tree_of(other).root == tree_of(tiny).root


def test_metadata_that_changes_the_arithmetic_changes_the_root(tiny: Path, tmp_path: Path) -> None:
    def turn(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0]["llama.rope.freq_base"].value = 20_000.0

    other = tmp_path / "turned.gguf"
    write_tiny_gguf(other, edit=turn)
    assert tree_of(other).tensors == tree_of(tiny).tensors
    assert tree_of(other).root != tree_of(tiny).root


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_single_bit_of_a_tensor_is_found_by_whoever_reads_it(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tree = tree_of(tiny)
    with GgufFile(tiny) as file:
        tensor = data.draw(st.sampled_from(sorted(file.tensors.values(), key=lambda t: t.name)))
    at = tensor.offset + data.draw(st.integers(0, tensor.size - 1))
    changed = bytearray(tiny.read_bytes())
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.write_bytes(changed)
    layers = range(4)
    if tensor.name.startswith("blk."):
        layer = int(tensor.name.split(".")[1])
        layers = range(layer, layer + 1)
    known = EngineOptions(cache=path.parent / "known")  # a library is tried once, not each time
    with pytest.raises(ModelChangedError, match="not the one that was hashed"):
        load_engine(path, layers, known, tree=tree)


def test_a_stage_reads_its_own_tensors_only(tiny: Path, tmp_path: Path) -> None:
    tree = tree_of(tiny)
    with GgufFile(tiny) as file:
        foreign = file.tensors["blk.3.ffn_down.weight"]
    changed = bytearray(tiny.read_bytes())
    changed[foreign.offset] ^= 1
    path = tmp_path / "elsewhere.gguf"
    path.write_bytes(changed)
    assert load_engine(path, range(1, 3), tree=tree).layers == range(1, 3)


def test_another_header_is_another_file(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "context.gguf"
    write_tiny_gguf(other, context_length=128)
    with pytest.raises(ModelChangedError, match="header"):
        load_engine(other, range(4), tree=tree_of(tiny))


def test_a_file_cut_short_while_it_is_read_ends_in_words(tiny: Path, tmp_path: Path) -> None:
    """What is mapped would end the process here."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny.read_bytes())
    with GgufFile(path) as file:
        last = max(file.tensors.values(), key=lambda tensor: tensor.offset)
        with path.open("r+b") as writer:
            writer.truncate(last.offset + 1)
        with pytest.raises(ModelError, match="cut short"):
            file.tensor_bytes(last)
        assert file.texts("tokenizer.ggml.merges")  # the header is in memory


def test_the_progress_reaches_its_end(tiny: Path) -> None:
    heard: list[float] = []
    with GgufFile(tiny) as file:
        hash_file(file, heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1.0)


def test_arrays_count_by_their_bytes(tmp_path: Path) -> None:
    def per_layer(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("llama.attention.head_count_kv")
        writer.add_array("llama.attention.head_count_kv", [2, 2, 2, 2])

    path = tmp_path / "arrays.gguf"
    write_tiny_gguf(path, edit=per_layer)
    engine = load_engine(path, range(4))
    plain = tmp_path / "plain.gguf"
    write_tiny_gguf(plain)
    same = load_engine(plain, range(4))
    assert engine.info.n_kv_heads == same.info.n_kv_heads == 2
    assert engine.info.data_sig != same.info.data_sig
    ids = np.arange(5)
    mine = engine.forward(b"x", range(4), [ids], 0)[0]
    np.testing.assert_array_equal(mine, same.forward(b"x", range(4), [ids], 0)[0])


def test_who_stops_waiting_stops_the_threads(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends must not hash the rest of a large file first."""
    hashed: list[str] = []
    really = hash_tree.tensor_hash

    def counted(tensor: TensorInfo, parts: Iterable[bytes]) -> bytes:
        hashed.append(tensor.name)
        threading.Event().wait(0.05)  # a large tensor
        return really(tensor, parts)

    monkeypatch.setattr(hash_tree, "tensor_hash", counted)

    def stop(part: float) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with GgufFile(tiny) as file:
        with pytest.raises(KeyboardInterrupt):
            hash_file(file, stop, threads=1)
        assert len(hashed) < len(file.tensors)
    assert threading.active_count() == before
