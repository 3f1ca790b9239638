"""Loads a run of layers of a GGUF file into the engine that computes with ggml."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from p2pnode.engine.ggml.backend import Backend
from p2pnode.engine.ggml.ends import Embedding, Head
from p2pnode.engine.ggml.engine import ClosesT, GgmlEngine, Share
from p2pnode.engine.ggml.library import Device, Ggml
from p2pnode.engine.ggml.mapping import MappedFile
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.gguf import info_of, read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TensorInfo
from p2pnode.engine.hash_tree import HashTree
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.variations import (
    ROPE_FACTORS,
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    layer_shapes,
)
from p2pnode.errors import ModelError

EMBEDDING: Final = "token_embd.weight"
NORM: Final = "output_norm.weight"
HEAD: Final = "output.weight"


def load_ggml(
    ggml: Ggml,
    path: Path,
    layers: range,
    tree: HashTree,
    *,
    kv_budget_bytes: int,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> GgmlEngine:
    """Load ``layers``; see :func:`p2pnode.engine.registry.load_engine`.

    Raises:
        ModelError: The file cannot be run, or has no such layers.
        ModelChangedError: It does not hold what ``tree`` says.
        CapacityError: There is not enough memory.
        EngineError: The library fails.
    """
    with ExitStack() as stack:
        file = stack.enter_context(GgufFile(path))
        tree.check_metadata(file)
        config = read_config(file)
        loader = _Loader(ggml, file, config, tree, stack, progress or (lambda _: None))
        if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= config.n_layers):
            raise ModelError(
                f"{path.name} has layers 0:{config.n_layers}, not {layers.start}:{layers.stop}"
            )
        (cpu,) = (device for device in ggml.devices() if device.handle == ggml.cpu())
        return loader.engine(layers, [(cpu, layers)], threads, kv_budget_bytes)


class _Loader:
    """Makes the parts of an engine; what ``stack`` closes is the engine's in the end."""

    def __init__(
        self,
        ggml: Ggml,
        file: GgufFile,
        config: ModelConfig,
        tree: HashTree,
        stack: ExitStack,
        progress: Callable[[float], None],
    ) -> None:
        self._ggml = ggml
        self._file = file
        self._config = config
        self._tree = tree
        self._made = stack.enter_context(ExitStack())
        self._progress = progress
        self._taken = 0

    def engine(
        self,
        layers: range,
        shares: Sequence[tuple[Device, range]],
        threads: int,
        kv_budget_bytes: int,
    ) -> GgmlEngine:
        config, file = self._config, self._file
        is_first, is_last = layers.start == 0, layers.stop == config.n_layers
        self._names = [name for _, run in shares for name in self._of_layers(run)]
        ends = {EMBEDDING} if is_first else set()
        ends |= {NORM, EMBEDDING if config.is_tied else HEAD} if is_last else set()
        self._total = sum(file.tensors[name].size for name in (*self._names, *ends)) or 1
        self._mapped = self._closing(self._map([*self._names, *ends]))
        (cpu,) = (device for device in self._ggml.devices() if device.handle == self._ggml.cpu())
        home = self._closing(Backend(self._ggml, cpu, threads))
        made = []
        for device, run in shares:
            backend = home if device.handle == cpu.handle else self._backend(device)
            made.append(Share(backend, run, self._weights(backend, self._of_layers(run))))
        last = self._weights(home, sorted(ends))
        embedding = None
        if is_first:
            embedding = self._closing(Embedding(home, last[EMBEDDING], config.d_model))
        head = None
        if is_last:
            matrix = last[EMBEDDING if config.is_tied else HEAD]
            head = Head(home, last[NORM], matrix, config.d_model, config.norm_eps)
            self._closing(head)
        everything = self._made.pop_all()
        self._progress(1.0)
        return GgmlEngine(
            info_of(file, config, self._tree),
            config,
            made,
            embedding=embedding,
            head=head,
            kv_budget_bytes=kv_budget_bytes,
            numerics=f"{self._ggml.numerics()}/kv-f16",
            device=f"cpu x{threads}",
            close=everything.close,
        )

    def _backend(self, device: Device) -> Backend:
        return self._closing(Backend(self._ggml, device))

    def _weights(self, backend: Backend, names: Iterable[str]) -> Weights:
        return self._closing(
            Weights(backend, self._file, self._mapped, names, check=self._check, done=self._done)
        )

    def _map(self, names: Iterable[str]) -> MappedFile:
        infos = [self._file.tensors[name] for name in names]
        return MappedFile(self._file.path, [(info.offset, info.size) for info in infos])

    def _check(self, info: TensorInfo, view: memoryview) -> None:
        self._tree.check(info, view)

    def _done(self, size: int) -> None:
        self._taken += size
        self._progress(min(1.0, self._taken / self._total))

    def _of_layers(self, layers: range) -> list[str]:
        """Return the names of all that the layers compute with."""
        shapes = layer_shapes(self._config)
        names = [f"blk.{index}.{name}" for index in layers for name in shapes]
        divisors = (ROPE_FACTORS, ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG)
        return [*names, *(name for name in divisors if name in self._file.tensors)]

    def _closing(self, thing: ClosesT) -> ClosesT:
        self._made.callback(thing.close)
        return thing
