"""Which engine runs which file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pnode.engine.base import Engine
from p2pnode.engine.gguf import read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.engine.numpy.engine import DEFAULT_KV_BUDGET, NumpyEngine
from p2pnode.engine.numpy.weights import Progress, what_numpy_lacks
from p2pnode.errors import ConfigError, EngineError, ModelError

if TYPE_CHECKING:
    from p2pnode.engine.ggml.probe import Candidate

ENGINES: Final = ("auto", "ggml", "numpy", "torch", "jax")

_EXTRAS: Final = frozenset({"torch", "jax"})

MOST_THREADS: Final = 1024


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What computes, as a person wants it.

    Attributes:
        engine: One of :data:`ENGINES`; ``auto`` takes ggml wherever a library of it loads.
        device: ``auto``, ``cpu``, or a GPU: ``cuda:0``, ``vulkan:1``, ``metal``.
        threads: Of the CPU; None for what is measured to be fastest.
        cache: Where is kept what was found out about libraries and threads; None for nowhere.

    Raises:
        ConfigError: There is no such engine, or so many threads.
    """

    engine: str = "auto"
    device: str = "auto"
    threads: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(
                f"there is no engine {self.engine!r}", hint=f"One of: {', '.join(ENGINES)}."
            )
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ConfigError(f"an engine cannot have {self.threads} threads")


DEFAULT_OPTIONS: Final = EngineOptions()


def load_engine(
    path: Path,
    layers: range,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    kv_budget_bytes: int = DEFAULT_KV_BUDGET,
    progress: Progress | None = None,
    tree: HashTree | None = None,
) -> Engine:
    """Load ``layers`` of the model at ``path`` into the engine that can run it.

    Args:
        path: A GGUF file of an architecture that is known.
        layers: Which layers to hold.
        options: What computes.
        kv_budget_bytes: The most memory all sessions' KV caches may take.
        progress: Hears which part from 0 to 1 is loaded.
        tree: What the file must hold: every tensor that is read is checked. Left out, the whole
            file is hashed first.

    Raises:
        ModelError: No engine can run the file.
        ModelChangedError: It does not hold what ``tree`` says.
        CapacityError: There is not enough memory.
        EngineError: The engine that was asked for is not there, or fails.
    """
    if path.suffix.lower() != ".gguf":
        raise ModelError(
            f"{path.name} is not a GGUF file",
            hint="Give the path of a .gguf file of a model.",
        )
    with GgufFile(path) as file:
        lacking = what_numpy_lacks(file, read_config(file))
        if tree is None:
            tree = hash_file(file)
    if options.engine in _EXTRAS:
        return _load_extra(path, layers, tree, options, kv_budget_bytes, progress)
    library = None if options.engine == "numpy" else _library(options, lacking)
    if library is None:
        _refuse_device(options)
        return NumpyEngine.load(
            path,
            layers,
            kv_budget_bytes=kv_budget_bytes,
            blas_threads=options.threads or 1,
            progress=progress,
            tree=tree,
        )
    from p2pnode.engine.ggml.load import load_ggml

    return load_ggml(
        library,
        path,
        layers,
        tree,
        device=options.device,
        threads=options.threads,
        cache=options.cache,
        kv_budget_bytes=kv_budget_bytes,
        progress=progress,
    )


def _load_extra(
    path: Path,
    layers: range,
    tree: HashTree,
    options: EngineOptions,
    kv_budget_bytes: int,
    progress: Progress | None,
) -> Engine:
    """Load into an engine that comes as an extra; each says what to install where it is not."""
    if options.engine == "jax":
        from p2pnode.engine.jax.load import load_jax

        return load_jax(
            path,
            layers,
            tree,
            device=options.device,
            kv_budget_bytes=kv_budget_bytes,
            progress=progress,
        )
    from p2pnode.engine.torch.load import load_torch

    return load_torch(
        path,
        layers,
        tree,
        device=options.device,
        threads=options.threads,
        kv_budget_bytes=kv_budget_bytes,
        progress=progress,
    )


def engine_for(path: Path, options: EngineOptions = DEFAULT_OPTIONS) -> str:
    """Return the name of the engine that would run a file.

    Raises:
        ModelError: No engine here can run it.
        EngineError: The one that was asked for is not there.
    """
    if options.engine in _EXTRAS:
        return options.engine
    with GgufFile(path) as file:
        lacking = what_numpy_lacks(file, read_config(file))
    return "numpy" if options.engine == "numpy" or not _library(options, lacking) else "ggml"


def _library(options: EngineOptions, lacking: str) -> "Candidate | None":
    """Return the ggml library to compute with; None where there is none and numpy serves as well.

    ``lacking``: what of the model numpy does not compute; empty where it computes all.
    """
    from p2pnode.engine.ggml.finding import find_library

    search = find_library(options.cache)
    if search.chosen is not None or (options.engine == "auto" and not lacking):
        return search.chosen
    tried = "; ".join(f"{one.provider.name}: {one.reason}" for one in search.candidates)
    why = f"no ggml library can be used here ({tried or 'none is installed'})"
    what = f"the model has {lacking}, which only ggml computes, and " if lacking else ""
    raise EngineError(
        what + why,
        hint="pip install libggml-python, or point P2PNODE_GGML_DIR at a folder of llama.cpp's.",
    )


def _refuse_device(options: EngineOptions) -> None:
    if options.device not in {"auto", "cpu"}:
        raise EngineError(
            f"the numpy engine computes on the CPU alone, not on {options.device}",
            hint="Use --engine ggml, or leave --device out.",
        )
