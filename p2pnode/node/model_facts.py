"""What a model's header says, and what the model takes of a machine; nothing of it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.engine.stored_model import open_stored
from p2pnode.node.catalogue import USUAL_CONTEXT

SPARE: Final = 256 << 20
"""Bytes left for the rest of a machine: a guess, as ``doctor`` has it."""

KV_NUMBER: Final = 2
"""Bytes of a number in a KV cache, as f16."""

_FLOAT: Final = 4


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
        ModelError: It is no model, or broken.
    """
    from p2pnode.node.gguf_facts import gguf_facts

    with open_stored(path) as model:
        return gguf_facts(model)
