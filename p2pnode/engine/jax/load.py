"""Loads a run of layers of a GGUF file into the engine that computes with JAX.

Nothing here imports JAX before somebody loads: that takes about a second.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pnode.engine.gguf import info_of, read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree
from p2pnode.engine.jax.runtime import DTYPES, choose_device, device_errors
from p2pnode.errors import EngineError

if TYPE_CHECKING:
    from p2pnode.engine.jax.engine import JaxEngine

_READ: Final = 0.8
"""The part of loading that reading is; compiling is the rest (a guess)."""


def load_jax(
    path: Path,
    layers: range,
    tree: HashTree,
    *,
    device: str = "auto",
    dtype: str = "f32",
    kv_budget_bytes: int,
    progress: Callable[[float], None] | None = None,
) -> "JaxEngine":
    """Load ``layers``; see :func:`p2pnode.engine.registry.load_engine` for the arguments.

    Args:
        path: A GGUF file of a llama.
        layers: Which layers to hold.
        tree: What the file must hold: every tensor that is read is checked.
        device: ``auto``, ``cpu``, or one that JAX has here: ``cuda:0``, ``tpu``, ``metal``.
        dtype: What weights are multiplied as, ``f32`` or ``bf16``; all else is float32.
        kv_budget_bytes: The most memory all sessions' KV caches may take.
        progress: Hears which part from 0 to 1 is loaded.

    Raises:
        ModelError: The file cannot be run, or has no such layers.
        ModelChangedError: It does not hold what ``tree`` says.
        CapacityError: The device has not enough memory.
        EngineError: JAX is not there, has no such device, or fails.
    """
    if dtype not in DTYPES:
        raise EngineError(
            f"the jax engine has no type {dtype!r}", hint=f"One of: {', '.join(DTYPES)}."
        )
    chosen = choose_device(device)
    from p2pnode.engine.jax.engine import JaxEngine
    from p2pnode.engine.jax.weights import read_weights

    said = progress or (lambda _: None)
    with GgufFile(path, tree.check) as file:
        tree.check_metadata(file)
        config = read_config(file)
        info = info_of(file, config, tree.root)
        with device_errors("for the model's weights"):
            weights = read_weights(
                file,
                config,
                layers,
                device=chosen,
                dtype=dtype,
                progress=lambda part: said(_READ * part),
            )
    engine = JaxEngine(
        info, config, weights, device=chosen, dtype=dtype, kv_budget_bytes=kv_budget_bytes
    )
    with ExitStack() as made:
        made.callback(engine.shut)
        engine.warm()
        made.pop_all()
    said(1.0)
    return engine
