"""What a GGUF file says about its model, and its weights as float32.

Quantised tensors are expanded by the ``gguf`` package, which knows every type and is kept up by
the format's authors. It is imported only when a tensor is read: it costs 0.18 s.
"""

import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.architectures import ARCHITECTURES, Architecture
from p2pnode.engine.base import Floats, ModelInfo
from p2pnode.engine.finite import check_weights
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue, TensorInfo
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.engine.model_config import ModelConfig, RopeKind, RopeScaling
from p2pnode.engine.variations import ROPE_FACTORS_LONG, check_tensors, refuse_variations
from p2pnode.errors import ModelError
from p2pnode.terminal import label
from p2pnode.wire.capability import space_hash32

MOST_POSITIONS: Final = 1 << 20
"""Positions of a context at the most, whatever a file says: no session may ask for more."""


def read_model_info(path: Path, tree: HashTree | None = None) -> ModelInfo:
    """Say what model a file holds; ``tree`` is its tree of hashes, made here where it is left out.

    Raises:
        ModelError: It is truncated, of an unknown architecture, or quantised in an unknown way.
    """
    with GgufFile(path) as file:
        config = read_config(file)
        return info_of(file, config, (hash_file(file) if tree is None else tree).root)


def info_of(file: GgufFile, config: ModelConfig, root: str) -> ModelInfo:
    """Say what model an open file holds; ``root`` is that of its tree of hashes."""
    return model_info(
        config,
        name=_name(file),
        space_id=_space_id(file, config),
        data_sig=root,
        eos_ids=_eos_ids(file, config.vocab_size),
    )


def model_info(
    config: ModelConfig, *, name: str, space_id: str, data_sig: str, eos_ids: tuple[int, ...]
) -> ModelInfo:
    """Describe a model."""
    return ModelInfo(
        name=name,
        arch=config.arch,
        n_layers=config.n_layers,
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        eos_ids=eos_ids,
        space_id=space_id,
        data_sig=data_sig,
        space_hash32=space_hash32(space_id, config.arch, data_sig),
        kv_bytes_per_token_layer=config.kv_bytes_per_token_layer,
        long_from=config.long_from,
    )


def read_config(file: GgufFile) -> ModelConfig:
    """Read the model's shape, refusing every variation that would be computed wrongly.

    Raises:
        ModelError: Its architecture is not known, or it is of a kind that nobody here computes.
    """
    arch = file.text("general.architecture")
    architecture = ARCHITECTURES.get(arch)
    if architecture is None:
        raise ModelError(
            f"{file.path.name} is of the architecture {label(arch)!r}, "
            "which no engine here can run",
            hint=f"Use a model of one of these: {', '.join(ARCHITECTURES)}.",
        )
    refuse_variations(file, architecture)
    config = _read_shape(file, architecture)
    check_tensors(file, config)
    _check_vocabulary_size(file, config)
    return config


def _read_shape(file: GgufFile, architecture: Architecture) -> ModelConfig:
    arch = architecture.name
    heads = _same_in_all_layers(file, f"{arch}.attention.head_count")
    d_model = file.integer(f"{arch}.embedding_length")
    n_layers = file.integer(f"{arch}.block_count")
    head_dim = file.integer(f"{arch}.attention.key_length", d_model // max(heads, 1))
    if (size := file.integer(f"{arch}.attention.value_length", head_dim)) != head_dim:
        raise ModelError(
            f"{file.path.name} has {arch}.attention.value_length {size} and heads of {head_dim}: "
            "only models where the two are the same are computed"
        )
    window, period, window_base = _window(file, architecture)
    experts, used = 0, 0
    width = "feed_forward_length"
    if architecture.has_experts:
        experts = file.integer(f"{arch}.expert_count")
        used = file.integer(f"{arch}.expert_used_count")
        width = "expert_feed_forward_length"
    return ModelConfig(
        arch=arch,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=heads,
        n_kv_heads=_same_in_all_layers(file, f"{arch}.attention.head_count_kv", heads),
        head_dim=head_dim,
        d_ff=_same_in_all_layers(file, f"{arch}.{width}"),
        vocab_size=find_tensor(file, "token_embd.weight").shape[0],
        context_length=min(file.integer(f"{arch}.context_length"), MOST_POSITIONS),
        rope_base=file.number(f"{arch}.rope.freq_base", 10_000.0),
        norm_eps=file.number(f"{arch}.attention.layer_norm_rms_epsilon"),
        rope_dims=_rope_dims(file, arch, head_dim),
        rope=_rope_scaling(file, arch),
        window=window,
        window_period=period,
        window_rope_base=window_base,
        attention_scale=_gemma_scale(arch, n_layers, d_model, heads),
        n_experts=experts,
        n_experts_used=used,
        is_tied="output.weight" not in file.tensors,
    )


def _rope_dims(file: GgufFile, arch: str, head_dim: int) -> int:
    """Return how many of a head's numbers turn; fewer than all only where phi does so."""
    turned = file.integer(f"{arch}.rope.dimension_count", head_dim)
    if turned == head_dim or (arch == "phi3" and 0 < turned < head_dim):
        return turned
    raise ModelError(
        f"{file.path.name} has {arch}.rope.dimension_count {turned} and heads of {head_dim}: "
        "only models where the two are the same are computed"
    )


def _gemma_scale(arch: str, n_layers: int, d_model: int, heads: int) -> float:
    """Return what gemma3 27B, known by its depth, multiplies scores by; 0 for what all others do.

    Source: ``query_pre_attn_scalar`` of the published configurations: 168 = 5376 / 32 in the 27B
    model, the width of a head in all others.
    """
    return math.sqrt(heads / d_model) if (arch, n_layers) == ("gemma3", 62) else 0.0


def _window(file: GgufFile, architecture: Architecture) -> tuple[int, int, float]:
    """Return the window's positions, its period, and the base of the rotary embedding there."""
    if not architecture.has_window:
        return 0, 1, 0.0
    arch = architecture.name
    window = file.integer(f"{arch}.attention.sliding_window", architecture.window)
    period = architecture.window_period
    pattern = f"{arch}.attention.sliding_window_pattern"
    match file.metadata.get(pattern):
        case None:
            pass
        case int(said) if not isinstance(said, bool) and said > 0:
            period = said
        case ArrayValue():
            raise ModelError(f"{file.path.name} lists {pattern} by layer, which is not computed")
        case said:
            raise ModelError(f"{file.path.name} has no usable value for {pattern}: {said!r}")
    base = file.number(f"{arch}.rope.freq_base_swa", architecture.window_rope_base)
    return window, period, base


def _rope_scaling(file: GgufFile, arch: str) -> RopeScaling:
    """Read how the rotary embedding is stretched; a factor without a type is linear, as in ggml."""
    prefix = f"{arch}.rope.scaling"
    said = file.text(f"{prefix}.type", "")
    if said and said not in [*RopeKind]:
        raise ModelError(
            f"{file.path.name} scales its rotary embedding as {label(said)!r} ({prefix}.type), "
            "which no engine here computes",
            hint=f"Known: {', '.join(RopeKind)}.",
        )
    old = file.number(f"{arch}.rope.scale_linear", 0.0)
    factor = file.number(f"{prefix}.factor", old) or 1.0  # 0 says that there is none
    kind = RopeKind(said) if said else RopeKind.LINEAR
    if ROPE_FACTORS_LONG in file.tensors:  # older files do not say it in words
        kind = RopeKind.LONGROPE
    attn_factor = file.number(f"{prefix}.attn_factor", 1.0) or 1.0
    if attn_factor != 1 and kind is not RopeKind.LONGROPE:
        raise ModelError(
            f"{file.path.name} has {prefix}.attn_factor {attn_factor} and {kind} scaling, which no "
            "engine here computes together"
        )
    if kind is RopeKind.NONE or (kind is RopeKind.LINEAR and factor == 1):
        return RopeScaling()
    return RopeScaling(
        kind=kind,
        factor=factor,
        original_context=file.integer(f"{prefix}.original_context_length", 0),
        attn_factor=attn_factor,
        beta_fast=file.number(f"{prefix}.yarn_beta_fast", 32.0),
        beta_slow=file.number(f"{prefix}.yarn_beta_slow", 1.0),
    )


def read_tensor(file: GgufFile, name: str, shape: tuple[int, ...]) -> Floats:
    """Read a tensor as float32.

    Raises:
        ModelError: It is missing, of another shape, or holds what is no number.
    """
    tensor = find_tensor(file, name)
    if tensor.shape != shape:
        raise ModelError(f"{file.path.name}: {name} has shape {tensor.shape}, expected {shape}")
    return dequantise(raw_rows(file, tensor), tensor).reshape(shape)


def raw_rows(file: GgufFile, tensor: TensorInfo) -> npt.NDArray[np.uint8]:
    """Return the tensor as stored: uint8 [rows, row_bytes].

    Raises:
        ModelError: It cannot be read, or holds what is no number.
    """
    data = file.tensor_bytes(tensor)
    check_weights(tensor.name, tensor.type.name, data)
    return np.frombuffer(data, np.uint8).reshape(tensor.rows, tensor.row_bytes)


def dequantise(rows: npt.NDArray[np.uint8], tensor: TensorInfo) -> Floats:
    """Expand stored rows [rows, row_bytes] to float32 [rows, width]."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.type.code)
    expanded: Floats = dequantize(rows, kind)  # [rows, width]
    return expanded


def find_tensor(file: GgufFile, name: str) -> TensorInfo:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise ModelError(f"{file.path.name} has no tensor {name}")
    return tensor


def _same_in_all_layers(file: GgufFile, key: str, default: int | None = None) -> int:
    """Read a number that a file may give once for every layer."""
    if not isinstance(file.metadata.get(key), ArrayValue):
        return file.integer(key, default)
    numbers = {*file.integers(key)}
    if len(numbers) != 1:
        raise ModelError(f"{file.path.name} has layers that differ in {key}: {sorted(numbers)}")
    return numbers.pop()


def _check_vocabulary_size(file: GgufFile, config: ModelConfig) -> None:
    """Refuse what contradicts the embedding's rows; a padded one has its padding in both counts."""
    key, rows = "tokenizer.ggml.tokens", config.vocab_size
    tokens = file.count(key) if key in file.metadata else rows
    size = file.integer(f"{config.arch}.vocab_size", rows)
    for what, count in ((f"names {tokens} tokens", tokens), (f"says vocab_size {size}", size)):
        if count != rows:
            raise ModelError(
                f"{file.path.name} {what}, and its embedding has {rows} rows; it is broken",
                hint="Fetch another file of this model, or convert it anew.",
            )


def _name(file: GgufFile) -> str:
    """Return what the file calls its model, or the file's own name."""
    parts = (_word(file, "general.basename"), _word(file, "general.size_label"))
    named = "-".join(parts).lower() if all(parts) else _word(file, "general.name")
    return named or _printable(file.path.stem) or "model"


def _word(file: GgufFile, key: str) -> str:
    """Return a text that nobody needs; empty where it is none."""
    value = file.metadata.get(key)
    return _printable(value) if isinstance(value, str) else ""


def _printable(text: str) -> str:
    """Cut a name to what an ad can carry: 64 bytes, printable."""
    printable = "".join(letter for letter in text if letter.isprintable())
    return printable.encode("utf-8", "replace")[:64].decode("utf-8", "ignore").strip()


def _space_id(file: GgufFile, config: ModelConfig) -> str:
    name = file.metadata.get("general.name")
    slug = _slug(name if isinstance(name, str) else config.arch)
    return f"{slug[:64]}-{config.n_layers}x{config.d_model}"


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _eos_ids(file: GgufFile, vocab_size: int) -> tuple[int, ...]:
    """Return the ids that end an answer by the metadata; impossible ones are passed over."""
    ids = set[int]()
    for name in ("eos_token_id", "eot_token_id", "eom_token_id"):
        key = f"tokenizer.ggml.{name}"
        match file.metadata.get(key):
            case bool():
                continue
            case int(token):
                ids.add(token)
            case ArrayValue() as array if array.is_of_integers:
                ids.update(file.integers(key))
    return tuple(sorted(token for token in ids if 0 <= token < vocab_size))
