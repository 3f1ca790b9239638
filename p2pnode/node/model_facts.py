"""What a model's header says, and what the model takes of a machine; nothing of it is loaded."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from p2pnode.engine.stored_model import StoredGguf, open_stored
from p2pnode.node.capacity import SPARE, capacity_in
from p2pnode.node.catalogue import USUAL_CONTEXT
from p2pnode.text.stored_vocabulary import checked_against

KV_NUMBER: Final = 2
"""Bytes of a number in a KV cache, as f16."""

_FLOAT: Final = 4  # bytes


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
        layer_second_bytes: What the ggml engine holds besides on a CPU, at most, for long
            batches.
        other_bytes: Of the tensors of no layer: embedding, output, norms.
        kv_bytes_per_token: Keys and values of one position in all layers, as f16.
        layer_numbers: Weights of each layer.
        other_numbers: Weights of no layer.
        problem: Why it cannot be run here, or empty.
        hint: What to do about that, or what is known instead; may be empty.
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
    layer_second_bytes: tuple[int, ...]
    other_bytes: int
    kv_bytes_per_token: int | None
    layer_numbers: tuple[int, ...]
    other_numbers: int
    problem: str
    hint: str = ""

    @property
    def why_not(self) -> str:
        """The problem and the hint, in one line."""
        return f"{self.problem}. {self.hint}" if self.hint else self.problem

    @property
    def checked_against(self) -> str | None:
        """The real vocabulary that its kind's tokens were compared with; None without one."""
        return checked_against(self.vocabulary, self.pre_tokenizer)

    @property
    def numbers(self) -> int:
        """Weights in all."""
        return sum(self.layer_numbers) + self.other_numbers

    @property
    def weights(self) -> int:
        """Bytes of all the tensors, as stored."""
        return sum(self.layer_bytes) + self.other_bytes

    @property
    def kv_bytes(self) -> int:
        """Keys and values of a usual context, in all layers, as f16."""
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

    def held(self, per_weight: int) -> tuple[tuple[int, ...], int]:
        """Return what each layer takes in memory, and all the rest.

        ``per_weight``: bytes that an engine holds each weight in; 0 for as the ggml engine does:
        as they are stored, and some in a second form.
        """
        if not per_weight:
            both = zip(self.layer_bytes, self.layer_second_bytes, strict=True)
            return tuple(stored + second for stored, second in both), self.other_bytes
        return tuple(per_weight * n for n in self.layer_numbers), per_weight * self.other_numbers

    def beside(self, gpu: int) -> "ModelFacts":
        """Return them where so many bytes of a GPU are free for weights and context.

        A model that it holds whole needs no second forms; of one that is shared out with the CPU
        they are counted for every layer, which is too much by those that the GPU takes.
        """
        if gpu < self.weights + self.kv_bytes:
            return self
        return replace(self, layer_second_bytes=(0,) * len(self.layer_bytes))

    def memory_as(self, per_weight: int) -> int:
        """Return what the whole model takes, weights held as for :meth:`held`, with a context."""
        layers, rest = self.held(per_weight)
        return sum(layers) + rest + self._kv(per_weight)

    def layers_that_fit(self, free: int, per_weight: int = 0) -> int:
        """Return how many layers go into so much free memory, with the context of each."""
        sizes, rest = self.held(per_weight)
        of_kv = self._kv(per_weight) // max(1, len(sizes))
        return capacity_in([size + of_kv for size in sizes], rest, free - SPARE).layers

    def peers_needed(self, free: int, per_weight: int = 0) -> int | None:
        """Return how many machines with so much free memory hold it; None where no layer fits."""
        room, fit = free - SPARE, self.layers_that_fit(free, per_weight)
        memory = self.memory_as(per_weight)
        if memory <= room:
            return 1
        if fit < 1 or self.held(per_weight)[1] > room:
            return None
        holding = -(-len(self.layer_bytes) // fit)
        # Embedding and output go into what the layers leave free, or else to one machine more.
        return holding + (holding * room < memory)

    def _kv(self, per_weight: int) -> int:
        """Return what a usual context takes: in float32 where weights are, else as f16."""
        return self.kv_bytes * (per_weight or KV_NUMBER) // KV_NUMBER


def facts_of(path: Path, *, with_words: bool = True) -> ModelFacts:
    """Read what a model's header says.

    Args:
        path: The model.
        with_words: Whether to read the vocabulary too, which takes half a second of a large one.
            Without, nothing is said of why the model cannot be run, nor of a checkpoint's words.

    Raises:
        ModelError: It is no model, or broken.
    """
    from p2pnode.node.checkpoint_facts import checkpoint_facts
    from p2pnode.node.gguf_facts import gguf_facts

    with open_stored(path) as model:
        if isinstance(model, StoredGguf):
            return gguf_facts(model, with_words=with_words)
        return checkpoint_facts(model, with_words=with_words)
