"""Which engine runs which file."""

import logging
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pnode.engine.base import Engine
from p2pnode.engine.checkpoint_tree import CheckpointTree
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree
from p2pnode.engine.numpy.engine import DEFAULT_KV_BUDGET, NumpyEngine
from p2pnode.engine.numpy.weights import Progress, what_numpy_lacks
from p2pnode.engine.stored_model import StoredModel, Tree, open_stored, tree_of_gguf
from p2pnode.errors import ConfigError, EngineError, ModelChangedError, ModelError, UsageError
from p2pnode.installing import install_extra

if TYPE_CHECKING:
    from p2pnode.engine.ggml.finding import Search
    from p2pnode.engine.ggml.probe import Candidate

logger = logging.getLogger(__name__)

ENGINES: Final = ("auto", "ggml", "numpy", "torch", "jax")

_EXTRAS: Final = frozenset({"torch", "jax"})

MOST_THREADS: Final = 1024

_OF_ANY: Final = frozenset({"auto", "cpu"})  # devices that every engine has


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What computes, as a person wants it.

    Attributes:
        engine: One of :data:`ENGINES`; ``auto`` takes ggml wherever a library of it loads.
        device: ``auto``, ``cpu``, or a GPU: ``cuda:0``, ``vulkan:1``, ``metal``.
        threads: Of the CPU; None for what is measured to be fastest.
        cache: Where is kept what was found out about libraries and threads; None for nowhere.
        max_vram: The most bytes of a GPU's memory for weights and KV caches; None for all.

    Raises:
        ConfigError: There is no such engine, or so many threads.
    """

    engine: str = "auto"
    device: str = "auto"
    threads: int | None = None
    cache: Path | None = None
    max_vram: int | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(
                f"there is no engine {self.engine!r}", hint=f"One of: {', '.join(ENGINES)}."
            )
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ConfigError(f"an engine cannot have {self.threads} threads")
        if self.max_vram is not None and self.max_vram < 0:
            raise ConfigError("less than no memory of a GPU")


DEFAULT_OPTIONS: Final = EngineOptions()


def load_engine(
    path: Path,
    layers: range,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    kv_budget_bytes: int = DEFAULT_KV_BUDGET,
    progress: Progress | None = None,
    tree: Tree | None = None,
) -> Engine:
    """Load ``layers`` of the model at ``path`` into the engine that can run it.

    Args:
        path: A model of an architecture that is known.
        layers: Which layers to hold.
        options: What computes.
        kv_budget_bytes: The most memory all sessions' KV caches may take.
        progress: Hears which part from 0 to 1 is loaded.
        tree: What the file must hold: every tensor that is read is checked. Left out, the whole
            file is hashed first.

    Raises:
        ModelError: No engine can run it.
        ModelChangedError: It does not hold what ``tree`` says.
        CapacityError: There is not enough memory.
        EngineError: The engine that was asked for is not there, or fails.
    """
    with open_stored(path) as model:
        options, lacking = suited(model.engine, path.name, options), _numpy_lacks(model)
        known = model.hashed() if tree is None else tree
    if options.engine in _EXTRAS:
        return _load_extra(path, layers, known, options, kv_budget_bytes, progress)
    held = tree_of_gguf(known, path)
    library = _library(options, lacking)
    if library is None:
        _refuse_device(options)
        return NumpyEngine.load(
            path,
            layers,
            kv_budget_bytes=kv_budget_bytes,
            blas_threads=options.threads or 1,
            progress=progress,
            tree=held,
        )
    from p2pnode.engine.ggml.load import load_ggml

    return load_ggml(
        library,
        path,
        layers,
        held,
        device=options.device,
        threads=options.threads,
        cache=options.cache,
        max_vram=options.max_vram,
        kv_budget_bytes=kv_budget_bytes,
        progress=progress,
    )


def _load_extra(
    path: Path,
    layers: range,
    tree: Tree,
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
            tree_of_gguf(tree, path),
            device=options.device,
            kv_budget_bytes=kv_budget_bytes,
            progress=progress,
        )
    from p2pnode.engine.torch.load import load_torch

    if not isinstance(tree, HashTree | CheckpointTree):
        raise ModelChangedError(f"{path.name} is of another format than what was hashed")
    return load_torch(
        path,
        layers,
        tree,
        device=options.device,
        threads=options.threads,
        kv_budget_bytes=kv_budget_bytes,
        progress=progress,
    )


def check_engine(path: Path, options: EngineOptions = DEFAULT_OPTIONS) -> None:
    """Refuse what cannot be computed as it was asked, without loading any of it.

    Tries ggml's libraries only where the answer depends on them.

    Raises:
        ModelError: No engine here can run the file, or not the one that was asked for.
        UsageError: There is no such device anywhere, or numpy is to use one.
        EngineError: The engine or the device that was asked for is not there.
    """
    with open_stored(path) as model:
        options, lacking = suited(model.engine, path.name, options), _numpy_lacks(model)
    if options.engine == "numpy" and lacking:
        raise ModelError(
            f"{path.name} has {lacking}, which the numpy engine does not compute",
            hint="Leave --engine out: ggml computes it; or only ask: --layers none.",
        )
    if options.engine in {"auto", "numpy"} and options.device in _OF_ANY and not lacking:
        return
    check_device(options, lacking)


def check_device_name(options: EngineOptions, engine: str = "") -> None:
    """Refuse a device that an engine has on no machine; nothing needs to be installed.

    Args:
        options: What was asked for.
        engine: The one engine that computes the model; empty where several do.

    Raises:
        UsageError: There is no such device anywhere, or numpy is to use one.
    """
    match engine or options.engine:
        case "torch":
            from p2pnode.engine.torch.finding import check_device_name as check
        case "jax":
            from p2pnode.engine.jax.runtime import check_device_name as check
        case _:
            from p2pnode.engine.ggml.placing import check_device_name as check
    check(options.device)
    if options.engine == "numpy":
        _refuse_device(options)


def check_device(options: EngineOptions, lacking: str = "") -> None:
    """Refuse an engine or a device that is not here; ``lacking`` is what numpy does not compute.

    Raises:
        UsageError: There is no such device anywhere, or numpy is to use one.
        EngineError: The engine or the device is not there.
    """
    check_device_name(options)
    if options.engine in _EXTRAS:
        if find_spec(options.engine) is None:
            raise EngineError(
                f"{options.engine} is not installed",
                hint=install_extra(options.engine),
            )
        return
    from p2pnode.engine.ggml.placing import choose_device

    library = _library(options, lacking, quiet=True)  # whoever loads it says so, in the log too
    if library is None:
        _refuse_device(options)
    elif library.report is not None:
        choose_device(options.device, library.report.devices)


def engine_for(path: Path, options: EngineOptions = DEFAULT_OPTIONS) -> str:
    """Return the name of the engine that would run a file.

    Raises:
        ModelError: The file is no model that is known.
        EngineError: The engine that was asked for is not there.
    """
    with open_stored(path) as model:
        options, lacking = suited(model.engine, path.name, options), _numpy_lacks(model)
    if options.engine in {*_EXTRAS, "numpy"}:
        return options.engine
    return "numpy" if _library(options, lacking) is None else "ggml"


def suited(engine: str, name: str, options: EngineOptions) -> EngineOptions:
    """Return the options with the one ``engine`` that computes a model, where it is not empty.

    Raises:
        ModelError: Another was asked for.
    """
    if not engine or options.engine == engine:
        return options
    if options.engine != "auto":
        raise ModelError(
            f"{name} is a checkpoint of safetensors, which the {options.engine} engine "
            "does not read",
            hint=f"Say --engine {engine}, or name a GGUF of this model.",
        )
    return replace(options, engine=engine)


def _numpy_lacks(model: StoredModel) -> str:
    """Say what of a model numpy does not compute; empty for nothing.

    Raises:
        ModelError: Nobody here computes it.
    """
    if isinstance(model.words, GgufFile):
        return what_numpy_lacks(model.words, model.config())
    return "weights as safetensors"


def _library(options: EngineOptions, lacking: str, *, quiet: bool = False) -> "Candidate | None":
    """Return the ggml library to compute with; None where numpy is wanted, or serves as well.

    Args:
        options: What was asked for.
        lacking: What of the model numpy does not compute; empty where it computes all.
        quiet: Nobody is told that another one takes the place of what was wanted.
    """
    if options.engine == "numpy":
        return None
    from p2pnode.engine.ggml.finding import find_library
    from p2pnode.engine.ggml.providers import remedy

    search = find_library(options.cache)
    if search.chosen is not None:
        if search.passed_over and not quiet:
            _say_once(search.passed_over)
        return search.chosen
    why = _why_none(search)
    if options.engine == "auto" and not lacking:
        if not quiet:
            _say_once(f"computes with numpy: {why}")
        return None
    what = f"the model has {lacking}, which only ggml computes, and " if lacking else ""
    raise EngineError(what + why, hint=remedy())


def _why_none(search: "Search") -> str:
    """Say why no library can be used."""
    tried = "; ".join(one.why_not for one in search.candidates)
    return f"no ggml library can be used here ({tried or 'none is installed'})"


@cache
def _say_once(what: str) -> None:
    """A command looks for a library many times, and finds the same."""
    logger.warning("%s", what)


def _refuse_device(options: EngineOptions) -> None:
    if options.device not in _OF_ANY:
        kind = UsageError if options.engine == "numpy" else EngineError
        raise kind(
            f"the numpy engine computes on the CPU alone, not on {options.device}",
            hint="Use --engine ggml, or leave --device out.",
        )
