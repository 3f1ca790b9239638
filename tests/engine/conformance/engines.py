"""The engines that the suite runs, and the models that it gives them.

An engine joins with one :class:`EngineCase` in :data:`ENGINES`. Where it cannot run on this
machine, :mod:`test_presence` is skipped under its name, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from p2pnode.engine.base import MOST_ROWS_TOGETHER, Array, Engine, Floats, SessionKey
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.errors import EngineError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

N_LAYERS: Final = 4
ALL: Final = range(N_LAYERS)
D_MODEL: Final = 64
CONTEXT: Final = 1024
AMPLE: Final = 64 * 2**20  # bytes of KV: more than any test needs
KEYS: Final = (b"s", b"t", b"u", *(bytes([number]) for number in range(8)))
"""The sessions that a test may open; they are closed after it."""


@dataclass(frozen=True, slots=True)
class EngineCase:
    """One engine and what it promises beside :class:`p2pnode.engine.base.Engine`.

    Attributes:
        name: What ``--engine`` calls it.
        load: Loads layers of a GGUF file with so many bytes for KV caches.
        error_plain: How far its results may be from numpy's on a file of floats, relative to their
            root mean square.
        error_quantised: The same on a quantised file.
        rounding: How far the results of one prompt in other batches may be, likewise.
        exact_rows: Batches of at most so many rows give the same bits however a prompt is cut
            into them; 1 promises nothing.
        needs: Modules without which its tests are not even collected.
    """

    name: str
    load: Callable[[Path, range, int], Engine]
    error_plain: float
    error_quantised: float
    rounding: float
    exact_rows: int = 1
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """The first module that is not there; empty where all are."""
        return next((name for name in self.needs if not _is_there(name)), "")


@dataclass(frozen=True, slots=True)
class Model:
    """One of the files; 4 layers, 64 wide, 1024 positions."""

    tensor_type: str
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int | None = None
    tied: bool = False

    def write(self, path: Path) -> None:
        write_tiny_gguf(
            path,
            tensor_type=self.tensor_type,
            seed=7,
            n_layers=N_LAYERS,
            d_model=D_MODEL,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            context_length=CONTEXT,
            tied=self.tied,
        )

    def error(self, case: EngineCase) -> float:
        plain = self.tensor_type in ("F32", "F16")
        return case.error_plain if plain else case.error_quantised


MAIN: Final = "q8_0"
"""The model of the tests that need one only."""

MODELS: Final = {
    MAIN: Model("Q8_0"),
    "q4_0 plain heads, tied": Model("Q4_0", n_kv_heads=4, tied=True),
    "q4_1 one kv head": Model("Q4_1", n_kv_heads=1),
    "f32 tied": Model("F32", tied=True),
    "f16 plain heads": Model("F16", n_heads=2, n_kv_heads=2),
    "f16 wide heads": Model("F16", n_heads=6, n_kv_heads=3, head_dim=32),
}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False


def _numpy(path: Path, layers: range, kv_budget_bytes: int) -> Engine:
    return NumpyEngine.load(path, layers, kv_budget_bytes=kv_budget_bytes)


def _ggml(path: Path, layers: range, kv_budget_bytes: int) -> Engine:
    options = EngineOptions("ggml", "cpu", 1, _libraries())
    return load_engine(path, layers, options, kv_budget_bytes=kv_budget_bytes)


@cache
def _libraries() -> Path:
    """Return where what was found out about libraries is kept, so that one trial does for all."""
    return Path(_kept().name)


@cache
def _kept() -> "TemporaryDirectory[str]":
    return TemporaryDirectory()


def _jax(path: Path, layers: range, kv_budget_bytes: int) -> Engine:
    from p2pnode.engine.jax.load import load_jax

    with GgufFile(path) as file:
        tree = hash_file(file)
    return load_jax(path, layers, tree, device="cpu", kv_budget_bytes=kv_budget_bytes)


def _torch(path: Path, layers: range, kv_budget_bytes: int) -> Engine:
    from p2pnode.engine.torch.load import load_torch

    with GgufFile(path) as file:
        tree = hash_file(file)
    return load_torch(path, layers, tree, device="cpu", threads=1, kv_budget_bytes=kv_budget_bytes)


ENGINES: Final = (
    EngineCase("numpy", _numpy, error_plain=0.0, error_quantised=0.0, rounding=1e-5),
    EngineCase(
        "ggml",
        _ggml,
        error_plain=1e-2,  # keys and values in float16; 0.007 at most so far
        error_quantised=0.1,  # inputs of each product in 8 bits; the weights are random
        rounding=3e-2,  # long batches attend in tiles; 0.015 so far
        exact_rows=MOST_ROWS_TOGETHER,
        needs=("libggml",),
    ),
    EngineCase(
        "torch",
        _torch,
        error_plain=1e-3,
        error_quantised=1e-3,
        rounding=1e-4,
        needs=("torch", "transformers"),
    ),
    EngineCase(
        "jax",
        _jax,
        error_plain=1e-5,
        error_quantised=1e-5,  # the same float32 weights, whatever the file stores
        rounding=1e-5,
        needs=("jax",),
    ),
)


@cache
def why_absent(case: EngineCase) -> str:
    """Say why the engine cannot run on this machine; empty where it can."""
    if case.missing:
        return f"{case.name}: there is no module {case.missing}"
    with TemporaryDirectory() as folder:
        path = Path(folder, "tiny.gguf")
        MODELS[MAIN].write(path)
        try:
            case.load(path, range(1), AMPLE).shut()
        except EngineError as error:
            return f"{case.name}: {error}"
    return ""


def ids(count: int, seed: int = 0) -> Array:
    """Return token ids [count]."""
    return np.random.default_rng(seed).integers(0, 256, count)


def states(count: int, seed: int = 0) -> Floats:
    """Return hidden states [count, d_model] of about unit size."""
    drawn = np.random.default_rng(seed).standard_normal((count, D_MODEL), np.float32)
    return drawn.astype(np.float32)


def run(
    engine: Engine, session: SessionKey, rows: Array, sizes: tuple[int, ...] = ()
) -> list[Floats]:
    """Run rows through all the layers of the engine, one call for each of these batch sizes."""
    assert sum(sizes) in (0, len(rows))
    hidden = []
    for batch in np.split(rows, np.cumsum(sizes)[:-1]) if sizes else [rows]:
        at = engine.length(session, engine.layers.start)
        hidden += engine.forward(session, engine.layers, [batch], at)
    return hidden


def same(ours: Floats, theirs: Floats) -> bool:
    """Say whether two results are the same, bit for bit."""
    equal = ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return equal and ours.tobytes() == theirs.tobytes()


def distance(ours: Floats, theirs: Floats) -> float:
    """Return the root mean square of the difference, relative to the second's."""
    apart = np.linalg.norm(ours.astype(np.float64) - theirs)
    return float(apart / np.linalg.norm(theirs))
