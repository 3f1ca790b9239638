"""What a model's header says, and what the model takes of a machine; nothing of it is loaded."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.engine.gguf import read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue, TensorInfo
from p2pnode.errors import ModelError
from p2pnode.node.catalogue import USUAL_CONTEXT
from p2pnode.text.vocabulary import check_vocabulary

SPARE: Final = 256 << 20
"""Bytes left for the rest of a machine: a guess, as ``doctor`` has it."""

_KV_NUMBER: Final = 2  # bytes, as f16
_FLOAT: Final = 4
_LAYER: Final = re.compile(r"blk\.(\d{1,5})\.")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What one model is; a number is None, and a text empty, where the file does not say.

    Attributes:
        title: What the file calls its model.
        architecture: As the file names it.
        licence: As the file names it.
        layers: Blocks.
        d_model: Width of a hidden state.
        context: Positions at the most.
        vocabulary: Its kind (``gpt2``, ``llama`` and so on).
        pre_tokenizer: As the file names it.
        tokens: In the vocabulary.
        has_template: Whether it has a chat template.
        quantisation: Bytes of the tensors of each type, the most first.
        layer_bytes: Of each layer's tensors, as stored.
        other_bytes: Of the tensors of no layer: embedding, output, norms.
        kv_bytes_per_token: Keys and values of one position in all layers, as f16.
        numbers: Weights in all.
        problem: Why it cannot be run here, or empty.
    """

    title: str
    architecture: str
    licence: str
    layers: int | None
    d_model: int | None
    context: int | None
    vocabulary: str
    pre_tokenizer: str
    tokens: int | None
    has_template: bool
    quantisation: dict[str, int]
    layer_bytes: tuple[int, ...]
    other_bytes: int
    kv_bytes_per_token: int | None
    numbers: int
    problem: str

    @property
    def weights(self) -> int:
        """Bytes of all the tensors, as stored."""
        return sum(self.layer_bytes) + self.other_bytes

    @property
    def kv_bytes(self) -> int:
        """Keys and values of a usual context, in all layers."""
        positions = min(self.context or USUAL_CONTEXT, USUAL_CONTEXT)
        return (self.kv_bytes_per_token or 0) * positions

    @property
    def memory(self) -> int:
        """Bytes that the whole model takes with its weights as stored."""
        return self.weights + self.kv_bytes

    @property
    def memory_as_floats(self) -> int:
        """Bytes that it takes with its weights as float32."""
        return _FLOAT * self.numbers + self.kv_bytes

    def layers_that_fit(self, free: int) -> int:
        """Return how many layers go into so much free memory, with the context of each."""
        count = len(self.layer_bytes)
        layer = max(self.layer_bytes, default=0) + self.kv_bytes // max(1, count)
        return max(0, min(count, (free - SPARE) // max(1, layer)))

    def peers_needed(self, free: int) -> int | None:
        """Return how many machines with so much free memory hold it; None where no layer fits."""
        room, fit = free - SPARE, self.layers_that_fit(free)
        if self.memory <= room:
            return 1
        if fit < 1 or self.other_bytes > room:
            return None
        holding = -(-len(self.layer_bytes) // fit)
        return holding + (holding * room < self.memory)


def facts_of(path: Path) -> ModelFacts:
    """Read what a model's header says.

    Raises:
        ModelError: It is no GGUF file, or broken.
    """
    with GgufFile(path) as file:
        arch = _text(file, "general.architecture")
        layers = _number(file, f"{arch}.block_count")
        tensors = [*file.tensors.values()]
        by_layer, other = _layer_bytes(tensors)
        mix = Counter[str]()
        for tensor in tensors:
            mix[tensor.type.name] += tensor.size
        return ModelFacts(
            title=_text(file, "general.name"),
            architecture=arch,
            licence=_text(file, "general.license"),
            layers=layers,
            d_model=_number(file, f"{arch}.embedding_length"),
            context=_number(file, f"{arch}.context_length"),
            vocabulary=_text(file, "tokenizer.ggml.model"),
            pre_tokenizer=_text(file, "tokenizer.ggml.pre"),
            tokens=_count(file, "tokenizer.ggml.tokens"),
            has_template=bool(_text(file, "tokenizer.chat_template")),
            quantisation=dict(mix.most_common()),
            layer_bytes=by_layer,
            other_bytes=other,
            kv_bytes_per_token=_kv_bytes(file, arch, layers),
            numbers=sum(tensor.rows * tensor.shape[-1] for tensor in tensors),
            problem=_problem(file),
        )


def _problem(file: GgufFile) -> str:
    try:
        read_config(file)
        check_vocabulary(file)
    except ModelError as error:
        return str(error)
    return ""


def _layer_bytes(tensors: list[TensorInfo]) -> tuple[tuple[int, ...], int]:
    layers, other = Counter[int](), 0
    for tensor in tensors:
        found = _LAYER.match(tensor.name)
        if found:
            layers[int(found[1])] += tensor.size
        else:
            other += tensor.size
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
    return 2 * _KV_NUMBER * width * total


def _text(file: GgufFile, key: str) -> str:
    value = file.metadata.get(key)
    return value if isinstance(value, str) else ""


def _number(file: GgufFile, key: str) -> int | None:
    value = file.metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(file: GgufFile, key: str) -> int | None:
    value = file.metadata.get(key)
    return value.count if isinstance(value, ArrayValue) else None
