"""The truth that engines are compared with: transformers and llama.cpp on one and the same model.

``CASES`` is the table to iterate. A test of an engine needs three lines::

    path = case.path(directory)
    ids = case.ids(length)
    expected = case.reference(ids)
"""

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tests.engines.gguf_files import Floats, write_gguf
from tests.engines.libllama import Libllama
from tests.engines.quantised import KINDS, MIXTURE, checkpoint
from tests.engines.recipes import LONG, RECIPES, VOCAB_SIZE, Recipe
from tests.engines.tiny_vocabulary import CONTROL

MOST_THREADS: Final = 1
"""One, for torch as well: the machine may have other things to do."""


@lru_cache(maxsize=1)
def libllama() -> Libllama:
    """Return the one process of llama.cpp; it ends with this one."""
    process = Libllama()
    atexit.register(process.close)
    return process


@dataclass(frozen=True, slots=True)
class Case:
    """One model in one file.

    Attributes:
        recipe: What the model is.
        kind: GGUF's type of its matrices, ``F32`` or one of ``KINDS`` or ``MIXTURE``.
    """

    recipe: Recipe
    kind: str = "F32"

    def __str__(self) -> str:
        return self.recipe.name if self.kind == "F32" else f"{self.recipe.name}-{self.kind}"

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of sequences worth comparing, in tokens, shortest first."""
        return self.recipe.lengths

    def path(self, directory: Path) -> Path:
        """Return the model's GGUF file in ``directory``, written the first time."""
        path = directory / f"{self}.gguf"
        if not path.exists():
            write_gguf(path, self.recipe, *self._checkpoint())
        return path

    def folder(self, directory: Path) -> Path:
        """Return a folder in ``directory`` with the same model as transformers keeps it.

        It has ``config.json`` and ``model.safetensors``, and no tokenizer.
        """
        folder = directory / str(self)
        if not folder.exists():
            self.model().save_pretrained(folder)
        return folder

    def ids(self, length: int) -> list[int]:
        """Return ``length`` tokens, no control token among them; a prefix of any longer ones."""
        rng = np.random.default_rng(self.recipe.seed)
        drawn: list[int] = rng.integers(len(CONTROL), VOCAB_SIZE, LONG).tolist()
        return drawn[:length]

    def model(self) -> Any:
        """Return transformers' float32 model, with the weights as the file has them."""
        return self._checkpoint()[0]

    def reference(self, ids: Sequence[int]) -> Floats:
        """Return transformers' logits of a sequence computed in one call: [tokens, vocab]."""
        return transformers_logits(self.model(), ids)

    def hidden(self, ids: Sequence[int], layers: int) -> Floats:
        """Return transformers' states [tokens, width] after the first ``layers`` layers."""
        return hidden_states(self.model(), ids, layers)

    def n_ctx(self, length: int) -> int:
        """Return a context of llama.cpp that treats rope as transformers does at this length."""
        border = self.recipe.original
        return border if border and length <= border else max(LONG, border) + 256

    def libllama(self, directory: Path, ids: Sequence[int], **options: Any) -> Floats:
        """Return llama.cpp's logits [tokens, vocab]; options are those of `Libllama.logits`."""
        given = {"n_ctx": self.n_ctx(len(ids)), **options}
        return libllama().logits(self.path(directory), ids, **given)

    def _checkpoint(self) -> tuple[Any, Any]:
        return checkpoint(self.recipe, self.kind, libllama())


def transformers_logits(model: Any, ids: Sequence[int]) -> Floats:
    """Return float32 logits [tokens, vocab] of one sequence, computed in one call."""
    torch.set_num_threads(MOST_THREADS)
    with torch.no_grad():
        found: Floats = model(torch.tensor([list(ids)])).logits[0].numpy()
    return found


def hidden_states(model: Any, ids: Sequence[int], layers: int, body: Any = None) -> Floats:
    """Return float32 states [tokens, width] that layer ``layers`` would get.

    0 is what the embedding gives, scaled where the model scales it; all layers is what the last
    norm gets, not what it makes of it. ``body``: what has the layers, unless ``model.model``.
    """
    torch.set_num_threads(MOST_THREADS)
    body, found = body or model.model, []
    blocks = [*body.layers, body.norm]

    def keep(_: Any, arguments: tuple[Any, ...]) -> None:
        found.append(arguments[0][0].numpy().copy())

    hook = blocks[layers].register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            model(torch.tensor([list(ids)]))
    finally:
        hook.remove()
    states: Floats = found[0]
    return states


@dataclass(frozen=True, slots=True)
class Figures:
    """How far two tables of logits [tokens, vocab] are from each other.

    Attributes:
        apart: The largest difference of two logits.
        kl: KL(expected || found) in nats, the mean of the rows.
        argmax: Share of the rows with the same first choice.
    """

    apart: float
    kl: float
    argmax: float

    def __str__(self) -> str:
        kl = max(self.kl, 0.0)
        return f"max |d| {self.apart:.1e}  KL {kl:.1e}  argmax {self.argmax:.3f}"


def figures(expected: Floats, found: Floats) -> Figures:
    """Return how far ``found`` is from ``expected``, both logits [tokens, vocab]."""
    return Figures(
        apart=float(np.abs(expected - found).max()),
        kl=float(divergence(expected, found).mean()),
        argmax=float((expected.argmax(axis=-1) == found.argmax(axis=-1)).mean()),
    )


def divergence(expected: Floats, found: Floats) -> Floats:
    """Return KL(expected || found) in nats of each row of logits [tokens, vocab]: [tokens]."""
    log_p, log_q = _log_softmax(expected), _log_softmax(found)
    rows: Floats = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return rows


def _log_softmax(logits: Floats) -> Any:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


_BY_NAME = {recipe.name: recipe for recipe in RECIPES}
_OFTEN_QUANTISED: Final = ("qwen2", "qwen3", "gemma3", "phi4-mini", "qwen3moe")

FLOAT_CASES: Final = tuple(Case(recipe) for recipe in RECIPES)
"""Every recipe in float32."""

QUANTISED_CASES: Final = (
    *(Case(_BY_NAME["llama-grouped"], kind) for kind in (*KINDS, MIXTURE)),
    *(Case(_BY_NAME[name], kind) for name in _OFTEN_QUANTISED for kind in ("Q8_0", MIXTURE)),
)
"""One llama in every type, and one of each other architecture in the types most often met."""

CASES: Final = FLOAT_CASES + QUANTISED_CASES
