"""Writes small GGUF files of random weights, of any type gguf can quantise to."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from p2pnode.text.tokenizer import byte_alphabet

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

    Quantize = Callable[[npt.NDArray[np.float32], GGMLQuantizationType], npt.NDArray[np.uint8]]

_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CONTROL_TOKENS = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")


def write_tiny_gguf(
    path: Path,
    *,
    tensor_type: str = "Q8_0",
    seed: int = 0,
    n_layers: int = 4,
    d_model: int = 64,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    context_length: int = 256,
    tied: bool = False,
    arch: str = "llama",
    pre: str = "smollm",
    edit: "Callable[[GGUFWriter], object] | None" = None,
    template: str | None = None,
    split: int = 0,
    quantize: "Quantize | None" = None,
) -> None:
    """Write a llama of random weights whose tokens are the bytes, " t" and four control tokens.

    Args:
        path: Where to write.
        tensor_type: Of all matrices: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1; or several,
            with spaces between them, that matrices have in turn.
        seed: Of the weights.
        n_layers: Layers.
        d_model: Width; a multiple of 32, the block of the quantised types.
        n_heads: Query heads.
        n_kv_heads: Key and value heads.
        head_dim: Width of a head; None for a share of ``d_model``.
        context_length: Most positions of a session.
        tied: Leave the output matrix out: the embedding serves for it.
        arch: What the file claims to be.
        pre: The pre-tokenizer it claims.
        edit: Changes the metadata, or adds tensors, before anything is written.
        template: Its chat template; None for one that writes roles and contents, "" for none.
        split: Tensors of one file; 0 for one file with all. ``x.gguf`` stands for
            ``x-00001-of-00003.gguf`` and so on then.
        quantize: What makes bytes of weights, for a type that gguf does not quantise to.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(path, arch, split_max_tensors=split)
    writer.add_name(f"tiny {seed}")
    writer.add_block_count(n_layers)
    writer.add_context_length(context_length)
    width = _add_widths(writer, d_model, n_heads, n_kv_heads, head_dim)
    vocab_size = _add_vocabulary(writer, pre, _TEMPLATE if template is None else template)
    tensors = _Tensors(writer, tensor_type, seed, quantize)
    tensors.matrix("token_embd", vocab_size, d_model)
    for index in range(n_layers):
        tensors.layer(f"blk.{index}", d_model, n_heads * width, n_kv_heads * width)
    tensors.norm("output_norm", d_model)
    if not tied:
        tensors.matrix("output", vocab_size, d_model)
    if edit is not None:
        edit(writer)
    _write(writer)


def _add_widths(
    writer: "GGUFWriter", d_model: int, n_heads: int, n_kv_heads: int, head_dim: int | None
) -> int:
    """Add what a layer's arithmetic is; return the width of a head."""
    writer.add_embedding_length(d_model)
    writer.add_feed_forward_length(2 * d_model)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    width = d_model // n_heads if head_dim is None else head_dim
    writer.add_rope_dimension_count(width)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    return width


def _write(writer: "GGUFWriter") -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Tensors:
    def __init__(
        self, writer: "GGUFWriter", tensor_type: str, seed: int, quantize: "Quantize | None"
    ) -> None:
        self._writer = writer
        self._quantize = quantize
        self._types = cycle(tensor_type.split())
        self._rng = np.random.default_rng(seed)

    def layer(self, name: str, d_model: int, queries: int, kv: int) -> None:
        self.norm(f"{name}.attn_norm", d_model)
        self.matrix(f"{name}.attn_q", queries, d_model)
        self.matrix(f"{name}.attn_k", kv, d_model)
        self.matrix(f"{name}.attn_v", kv, d_model)
        self.matrix(f"{name}.attn_output", d_model, queries)
        self.norm(f"{name}.ffn_norm", d_model)
        self.matrix(f"{name}.ffn_gate", 2 * d_model, d_model)
        self.matrix(f"{name}.ffn_up", 2 * d_model, d_model)
        self.matrix(f"{name}.ffn_down", d_model, 2 * d_model)

    def norm(self, name: str, size: int) -> None:
        weight = self._rng.uniform(0.5, 1.5, size).astype(np.float32)  # [size]
        self._writer.add_tensor(f"{name}.weight", weight)

    def matrix(self, name: str, out_size: int, in_size: int) -> None:
        weight = self._rng.standard_normal((out_size, in_size), np.float32)
        self._store(f"{name}.weight", weight / np.float32(np.sqrt(in_size)))

    def _store(self, name: str, weight: npt.NDArray[np.float32]) -> None:
        from gguf import GGMLQuantizationType
        from gguf.quants import quantize

        kind = GGMLQuantizationType[next(self._types)]
        stored = (self._quantize or quantize)(weight, kind)
        self._writer.add_tensor(name, stored, raw_dtype=kind)


def _add_vocabulary(writer: "GGUFWriter", pre: str, template: str) -> int:
    letters = {value: letter for letter, value in byte_alphabet().items()}
    space = letters[b" "]
    plain = [*(letters[bytes([byte])] for byte in range(256)), space + "t"]
    tokens = [*plain, *_CONTROL_TOKENS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(plain) + [3] * len(_CONTROL_TOKENS))
    writer.add_token_merges([f"{space} t"])
    writer.add_bos_token_id(tokens.index("<|user|>"))
    writer.add_eos_token_id(tokens.index("<|end|>"))
    if template:
        writer.add_chat_template(template)
    return len(tokens)
