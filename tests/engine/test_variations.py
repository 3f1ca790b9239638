"""What a file says about its arithmetic is computed, or the file is refused by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from p2pnode.engine.gguf import read_model_info
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

Writer = Any


def written(path: Path, edit: Callable[[Writer], None]) -> Path:
    write_tiny_gguf(path, edit=edit)
    return path


def put(key: str, value: object) -> Callable[[Writer], None]:
    kinds = {
        bool: gguf.GGUFValueType.BOOL,
        int: gguf.GGUFValueType.INT64,
        float: gguf.GGUFValueType.FLOAT32,
        str: gguf.GGUFValueType.STRING,
        list: gguf.GGUFValueType.ARRAY,
    }

    def edit(writer: Writer) -> None:
        writer.kv_data[0].pop(key, None)
        writer.add_key_value(key, value, kinds[type(value)])

    return edit


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("llama.rope.scaling.type", "fast", "'fast'"),
        ("llama.rope.scaling.factor", float("inf"), "factor inf"),
        ("llama.rope.scaling.factor", -2.0, "factor -2"),
        ("llama.rope.scaling.attn_factor", 1.2, "attn_factor"),
        ("llama.rope.scaling.yarn_log_multiplier", 0.1, "yarn_log_multiplier"),
        ("llama.attention.sliding_window", True, "sliding_window"),
        ("llama.attention.sliding_window_pattern", [True, False], "by layer"),
        ("llama.attention.sliding_window_pattern", 0, "sliding_window_pattern: 0"),
        ("llama.attn_logit_softcapping", 50.0, "capped attention scores"),
        ("llama.final_logit_softcapping", 30.0, "capped logits"),
        ("llama.attention.causal", False, "causal"),
        ("llama.attention.scale", 0.5, "attention.scale"),
        ("llama.logit_scale", 0.25, "logit_scale"),
        ("llama.embedding_scale", 12.0, "embedding_scale"),
        ("llama.residual_scale", 0.22, "residual_scale"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("llama.something_new", 3, "something_new = 3"),
        ("llama.attention.head_count_kv", [2, 1, 2, 2], "differ in llama.attention.head_count_kv"),
        ("llama.attention.value_length", 8, "value_length 8"),
        ("llama.rope.dimension_count", 8, "dimension_count 8"),
        ("llama.context_length", 0, "context_length 0"),
        ("llama.context_length", 256.0, "llama.context_length"),
        ("llama.rope.freq_base", float("nan"), "base nan"),
        ("llama.rope.freq_base", float("inf"), "base inf"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "epsilon nan"),
        ("llama.block_count", 3, "beyond its 3 layers"),
        ("llama.block_count", 60_000, "no tensor blk.4"),
        ("llama.feed_forward_length", 64, "expected"),
        ("split.count", 3, "one of 3 parts"),
        ("tokenizer.ggml.tokens", ["a", "b"], "names 2 tokens"),
        ("llama.vocab_size", 7, "says vocab_size 7, and its embedding has 261 rows"),
        ("llama.vocab_size", 0, "says vocab_size 0"),
        ("llama.vocab_size", 262, "says vocab_size 262"),
        ("llama.vocab_size", 2**32 - 1, "says vocab_size 4294967295"),
        ("llama.vocab_size", True, "no usable value for llama.vocab_size"),
        ("llama.vocab_size", "261", "no usable value for llama.vocab_size"),
    ],
)
def test_a_variation_is_refused_by_name(
    key: str, value: object, named: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "odd.gguf", put(key, value))
    with pytest.raises(ModelError, match=named.replace("[", r"\[")):
        read_model_info(path)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("llama.rope.scaling.type", "yarn", "stretched rotary"),
        ("llama.rope.scaling.factor", 4.0, "stretched rotary"),
        ("llama.rope.scale_linear", 2.0, "stretched rotary"),
        ("llama.attention.sliding_window", 128, "sliding window"),
    ],
)
def test_numpy_refuses_by_name_what_others_compute(
    key: str, value: object, named: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "odd.gguf", put(key, value))
    assert read_model_info(path).n_layers == 4
    with pytest.raises(ModelError, match=named):
        NumpyEngine.load(path, range(4))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.rope.scaling.type", "none"),
        ("llama.rope.scaling.factor", 1.0),
        ("llama.rope.scale_linear", 1.0),
        ("llama.rope.scaling.original_context_length", 2048),
        ("llama.attention.sliding_window", 0),
        ("llama.attention.causal", True),
        ("llama.attention.head_count_kv", [2, 2, 2, 2]),
        ("llama.vocab_size", 261),
        ("general.tags", ["a", "b"]),
        ("general.name", 5),
        ("general.name", "\0"),
        ("general.basename", ["x"]),
        ("qwen2.something", 7),
        ("split.count", 1),
    ],
)
def test_what_changes_nothing_is_no_reason_to_refuse(
    key: str, value: object, tmp_path: Path
) -> None:
    assert read_model_info(written(tmp_path / "fine.gguf", put(key, value))).n_layers == 4


@pytest.mark.parametrize(
    "tensor",
    [
        "blk.0.attn_q.bias",
        "blk.1.attn_q_norm.weight",
        "blk.1.attn_q.scale",
        "blk.2.ffn_gate_exps.weight",
        "blk.3.post_ffw_norm.weight",
        "rope_freqs.weight",
        "rope_factors_long.weight",
        "output.bias",
        "mtp.weight",
    ],
)
def test_a_tensor_that_nobody_would_read_is_refused_by_name(tensor: str, tmp_path: Path) -> None:
    def add(writer: Writer) -> None:
        writer.add_tensor(tensor, np.ones(16, np.float32))

    with pytest.raises(ModelError, match=tensor):
        read_model_info(written(tmp_path / "odd.gguf", add))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("tensor", ["blk.1.ffn_norm.weight", "output_norm.weight"])
def test_a_norm_that_ggml_cannot_multiply_by_is_refused(
    tensor: str, kind: str, tmp_path: Path
) -> None:
    def store(writer: Writer) -> None:
        stored = gguf.quants.quantize(np.ones(64, np.float32), gguf.GGMLQuantizationType[kind])
        del writer.tensors[0][tensor]
        writer.add_tensor(tensor, stored, raw_dtype=gguf.GGMLQuantizationType[kind])

    with pytest.raises(ModelError, match=f"{tensor} is stored as {kind}"):
        read_model_info(written(tmp_path / "odd.gguf", store))


HEAD_PAIRS = 8
SENSELESS = (0.0, -1.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e-30, 1e30)


@pytest.mark.parametrize("place", [0, HEAD_PAIRS - 1])
@pytest.mark.parametrize("value", SENSELESS)
def test_divisors_that_make_answers_of_nan_are_refused(
    value: float, place: int, tmp_path: Path
) -> None:
    divisors = np.ones(HEAD_PAIRS, np.float32)

    def add(*names: str) -> Path:
        def edit(writer: Writer) -> None:
            for name in names:
                writer.add_tensor(name, divisors if name == names[-1] else np.ones_like(divisors))

        return written(tmp_path / "odd.gguf", edit)

    both = ("rope_factors_short.weight", "rope_factors_long.weight")
    for names in (("rope_freqs.weight",), both, both[::-1]):
        divisors[place] = 2.0
        read_model_info(add(*names))
        divisors[place] = value
        with pytest.raises(ModelError, match=f"{names[-1]} divides a frequency by"):
            read_model_info(add(*names))


@pytest.mark.parametrize("value", [*SENSELESS[1:], 1.0])
@pytest.mark.parametrize("key", ["rope.freq_base", "rope.scaling.factor"])
def test_a_stretch_that_makes_answers_of_nan_is_refused(
    key: str, value: float, tmp_path: Path
) -> None:
    def edit(writer: Writer) -> None:
        put("llama.rope.scaling.type", "yarn")(writer)
        put(f"llama.{key}", value)(writer)

    path = written(tmp_path / "odd.gguf", edit)
    if key == "rope.scaling.factor" and value in (0.0, 1.0):  # 0: there is none
        read_model_info(path)
        return
    with pytest.raises(ModelError, match=r"rotary embedding cannot"):
        read_model_info(path)


@pytest.mark.parametrize(
    ("value", "ids"),
    [(-1, ()), (2**32 - 1, ()), ([260, 257, 9999], (257, 260)), (258, (258,)), ("end", ())],
)
def test_ends_that_cannot_be_are_passed_over(
    value: object, ids: tuple[int, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "ends.gguf", put("tokenizer.ggml.eos_token_id", value))
    assert read_model_info(path).eos_ids == ids


def test_a_context_beyond_all_sessions_is_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "long.gguf", put("llama.context_length", 2**40))
    assert read_model_info(path).context_length == 1 << 20


def raw(path: Path, pairs: bytes, count: int = 1) -> Path:
    """Write a tiny file with more pairs in front of its metadata."""
    write_tiny_gguf(path)
    data = path.read_bytes()
    n_pairs = int.from_bytes(data[16:24], "little") + count
    reader = gguf.GGUFReader(path)
    tensors = min(int(tensor.data_offset) for tensor in reader.tensors)
    end = max(
        int(tensor.field.offset) + sum(int(part.nbytes) for part in tensor.field.parts)
        for tensor in reader.tensors
    )
    head = data[:16] + n_pairs.to_bytes(8, "little") + pairs + data[24:end]
    path.write_bytes(head + bytes(-len(head) % 32) + data[tensors:])
    return path


def text(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


NESTED = number(9) + number(9) + number(1, 8) + number(4) + number(2, 8) + number(1) + number(2)


@pytest.mark.parametrize(
    "pair",
    [
        text(b"x.nested") + NESTED,
        text(b"x.empty") + number(9) + number(9) + number(0, 8),
        text(b"general.tags") + number(9) + number(8) + number(0, 8),
        text(b"") + number(4) + number(7),
        text(b"general.author") + number(8) + text(b"\xff\xfe"),
    ],
)
def test_metadata_that_nobody_needs_refuses_no_file(pair: bytes, tmp_path: Path) -> None:
    assert read_model_info(raw(tmp_path / "odd.gguf", pair)).n_layers == 4


@pytest.mark.parametrize(
    ("pair", "named"),
    [
        (text(b"llama.context_length") + number(4) + number(7), "twice"),
        (text(b"x") + number(9) + (number(9) + number(1, 8)) * 300, "unknown type 9"),
        (text(b"x") + number(9) + number(9) + number(2**60, 8), "truncated"),
        (text(b"x") + number(77), "unknown type 77"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(pair: bytes, named: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=named):
        read_model_info(raw(tmp_path / "odd.gguf", pair))


def test_a_big_endian_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + bytes(64))
    with pytest.raises(ModelError, match="big-endian"):
        read_model_info(path)


def test_other_things_than_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.gguf").mkdir()
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    for name in ("folder.gguf", "pipe.gguf"):
        with pytest.raises(ModelError, match="no ordinary file"):
            read_model_info(tmp_path / name)
    with pytest.raises(ModelError, match="is empty"):
        read_model_info(tmp_path / "empty.gguf")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"  <html>", "web page"),
        (b"tjgg" + bytes(60), "before GGUF"),
        (b"PK\x03\x04" + bytes(60), "pickle"),
    ],
)
def test_what_people_take_for_a_model_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=named) as caught:
        read_model_info(path)
    assert caught.value.hint


@pytest.mark.parametrize(("index", "by"), [(0, 1), (5, -64), (3, 32), (7, -(2**20))])
def test_tensors_that_lie_within_each_other_are_refused(
    index: int, by: int, tmp_path: Path
) -> None:
    path = tmp_path / "displaced.gguf"
    write_tiny_gguf(path)
    data = bytearray(path.read_bytes())
    tensor = gguf.GGUFReader(path).tensors[index]
    at = int(tensor.field.offset) + sum(int(part.nbytes) for part in tensor.field.parts) - 8
    offset = int.from_bytes(data[at : at + 8], "little") + by
    data[at : at + 8] = (offset % 2**64).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"within another one|truncated"):
        read_model_info(path)


@pytest.mark.parametrize("alignment", [0, 3, 24, 2**30, "x"])
def test_an_impossible_alignment_is_refused(alignment: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="alignment"):
        read_model_info(written(tmp_path / "odd.gguf", put("general.alignment", alignment)))


def test_a_key_cannot_break_the_line_that_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "odd.gguf", put("llama.a\nb\x1b[31m", 3))
    with pytest.raises(ModelError) as caught:
        read_model_info(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
