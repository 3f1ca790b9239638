"""What the header of a GGUF file says of its model."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from p2pnode.engine.ggml.second_forms import second_bytes, second_types, split_bytes
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue, TensorInfo
from p2pnode.engine.stored_model import StoredGguf
from p2pnode.errors import ModelError
from p2pnode.node.model_facts import KV_NUMBER, ModelFacts
from p2pnode.text.stored_vocabulary import check_words

_LAYER: Final = re.compile(r"blk\.(\d{1,5})\.")


def gguf_facts(model: StoredGguf, *, with_words: bool) -> ModelFacts:
    """Read it; a model that cannot be run has facts too."""
    file = model.file
    arch = _text(file, "general.architecture")
    layers = _number(file, f"{arch}.block_count")
    tensors = [*file.tensors.values()]
    by_layer, other = _by_layer(tensors, lambda tensor: tensor.size)
    numbers, other_numbers = _by_layer(tensors, lambda tensor: tensor.rows * tensor.shape[-1])
    types = second_types(tensors)
    second, _ = _by_layer(
        tensors,
        lambda one: split_bytes(one) + (second_bytes(one) if one.type.code in types else 0),
    )
    problem, hint = _problem(model) if with_words else ("", "")
    mix = Counter[str]()
    for tensor in tensors:
        mix[tensor.type.name] += tensor.size
    return ModelFacts(
        title=_text(file, "general.name"),
        architecture=arch,
        licence=model.licence(),
        layers=layers,
        d_model=_number(file, f"{arch}.embedding_length"),
        context=_number(file, f"{arch}.context_length"),
        vocabulary=_text(file, "tokenizer.ggml.model"),
        pre_tokenizer=_text(file, "tokenizer.ggml.pre"),
        tokens=_count(file, "tokenizer.ggml.tokens"),
        has_template=bool(_text(file, "tokenizer.chat_template")),
        quantisation=dict(mix.most_common()),
        layer_bytes=by_layer,
        layer_second_bytes=second,
        other_bytes=other,
        kv_bytes_per_token=_kv_bytes(file, arch, layers),
        layer_numbers=numbers,
        other_numbers=other_numbers,
        problem=problem,
        hint=hint,
    )


def _problem(model: StoredGguf) -> tuple[str, str]:
    """Return why it cannot be run, and what to do; empty texts where it can."""
    try:
        model.config()
        check_words(model)
    except ModelError as error:
        return str(error), error.hint
    return "", ""


def _by_layer(
    tensors: list[TensorInfo], size: Callable[[TensorInfo], int]
) -> tuple[tuple[int, ...], int]:
    """Add up the sizes of each layer's tensors, and of the others."""
    layers, other = Counter[int](), 0
    for tensor in tensors:
        found = _LAYER.match(tensor.name)
        if found:
            layers[int(found[1])] += size(tensor)
        else:
            other += size(tensor)
    return tuple(layers[index] for index in sorted(layers)), other


def _kv_bytes(file: GgufFile, arch: str, layers: int | None) -> int | None:
    """Return what a position takes in all layers, where the file says all that is needed."""
    heads, width = _number(file, f"{arch}.attention.head_count"), None
    d_model = _number(file, f"{arch}.embedding_length")
    if heads and d_model:
        width = _number(file, f"{arch}.attention.key_length") or d_model // heads
    key = f"{arch}.attention.head_count_kv"
    kv_heads = _number(file, key) or heads
    if layers is None or width is None or kv_heads is None:
        return None
    value = file.metadata.get(key)
    total = layers * kv_heads
    if isinstance(value, ArrayValue) and value.is_of_integers and value.count == layers:
        total = sum(file.integers(key))
    return 2 * KV_NUMBER * width * total


def _text(file: GgufFile, key: str) -> str:
    value = file.metadata.get(key)
    return value if isinstance(value, str) else ""


def _number(file: GgufFile, key: str) -> int | None:
    value = file.metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(file: GgufFile, key: str) -> int | None:
    value = file.metadata.get(key)
    return value.count if isinstance(value, ArrayValue) else None
