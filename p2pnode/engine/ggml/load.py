"""Loads a run of layers of a GGUF file into the engine that computes with ggml."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from p2pnode.engine.blas import blas_name, limit_blas_threads
from p2pnode.engine.finite import check_weights
from p2pnode.engine.ggml.backend import Backend
from p2pnode.engine.ggml.binding import Device, Ggml, load
from p2pnode.engine.ggml.ends import Embedding, Head
from p2pnode.engine.ggml.engine import ClosesT, GgmlEngine, Share
from p2pnode.engine.ggml.expand import PRODUCT_RULES
from p2pnode.engine.ggml.functions import TensorHead
from p2pnode.engine.ggml.mapped_tensors import MappedTensors
from p2pnode.engine.ggml.placing import loaded_device, share_out
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.ggml.stability import is_head_stable
from p2pnode.engine.ggml.threads import refuse_too_many, use_fastest
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
from p2pnode.errors import EngineError, ModelError

EMBEDDING: Final = "token_embd.weight"
NORM: Final = "output_norm.weight"
HEAD: Final = "output.weight"
_DIVISORS: Final = (ROPE_FACTORS, ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG)


def load_ggml(
    library: Candidate,
    path: Path,
    layers: range,
    tree: HashTree,
    *,
    device: str = "auto",
    threads: int | None = 1,
    cache: Path | None = None,
    max_vram: int | None = None,
    kv_budget_bytes: int,
    progress: Callable[[float], None] | None = None,
) -> GgmlEngine:
    """Load ``layers``; see :func:`p2pnode.engine.registry.load_engine` for the arguments.

    ``library`` is one that was tried; ``threads`` None measures what is fastest, once, and keeps
    it in ``cache``.

    Raises:
        ModelError: The file cannot be run, or has no such layers.
        ModelChangedError: It does not hold what ``tree`` says.
        CapacityError: There is not enough memory.
        ConfigError: There are more threads than cores.
        EngineError: The library fails.
    """
    refuse_too_many(threads)
    limit_blas_threads(1)  # :mod:`.split` and :mod:`.expand` use it; it rounds by its threads
    with GgufFile(path) as file, ExitStack() as made:
        tree.check_metadata(file)
        config = read_config(file)
        if library.report is None:
            raise EngineError(f"{library.provider.name} cannot be used: {library.reason}")
        ggml = load(library.provider, gpus=library.report.gpus)
        kernels = library.report.numerics
        loader = _Loader(ggml, kernels, file, config, tree, made, progress or (lambda _: None))
        if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= config.n_layers):
            raise ModelError(
                f"{path.name} has layers 0:{config.n_layers}, not {layers.start}:{layers.stop}"
            )
        chosen = loaded_device(device, library.report, ggml.devices())
        shares = loader.shares(layers, chosen, kv_budget_bytes, max_vram)
        engine = loader.engine(layers, shares, threads or 1, kv_budget_bytes)
        if threads is None:
            made.callback(engine.shut)
            use_fastest(engine, cache, f"{ggml.provider.name}/{kernels}", tree.root)
            made.pop_all()
    return engine


class _Loader:
    """Makes the parts of an engine; what ``made`` would close is the engine's in the end."""

    def __init__(
        self,
        ggml: Ggml,
        kernels: str,
        file: GgufFile,
        config: ModelConfig,
        tree: HashTree,
        made: ExitStack,
        progress: Callable[[float], None],
    ) -> None:
        self._ggml = ggml
        self._kernels = kernels
        self._file = file
        self._config = config
        self._tree = tree
        self._made = made
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
        cpu = self._cpu()
        is_first, is_last = layers.start == 0, layers.stop == config.n_layers
        self._names = [name for _, run in shares for name in self._of_layers(run)]
        ends = {EMBEDDING} if is_first else set()
        ends |= {NORM, EMBEDDING if config.is_tied else HEAD} if is_last else set()
        self._total = sum(file.tensors[name].size for name in (*self._names, *ends)) or 1
        wanted = [file.tensors[name] for name in (*self._names, *ends)]
        self._mapped = self._closing(MappedTensors(file, wanted))
        home = self._closing(Backend(self._ggml, cpu, threads))
        made = []
        for device, run in shares:
            backend = home if device.handle == cpu.handle else self._backend(device)
            made.append(Share(backend, run, self._weights(backend, self._of_layers(run))))
        embedding = self._embedding(home) if is_first else None
        head = self._head(made[-1].backend) if is_last else None
        everything = ExitStack()
        engine = GgmlEngine(
            info_of(file, config, self._tree.root),
            config,
            made,
            embedding=embedding,
            head=head,
            kv_budget_bytes=kv_budget_bytes,
            numerics=f"{self._numerics(made)}/kv-f16",
            threads=threads,
            damage=self._mapped.damage,
            close=everything.close,
        )
        self._progress(1.0)
        everything.push(self._made.pop_all())  # only now: until here, whoever fails closes it
        return engine

    def shares(
        self, layers: range, device: Device, kv_budget_bytes: int, max_vram: int | None
    ) -> list[tuple[Device, range]]:
        """Share the layers out among a device and the CPU."""
        of_kv = kv_budget_bytes // len(layers)
        sizes = [
            of_kv + sum(self._file.tensors[name].size for name in self._of_layer(index))
            for index in layers
        ]
        is_last = layers.stop == self._config.n_layers
        matrix = EMBEDDING if self._config.is_tied else HEAD
        end = self._file.tensors[matrix].size if is_last else 0
        return share_out(layers, device, self._cpu(), sizes, end, max_vram)

    def _cpu(self) -> Device:
        handle = self._ggml.cpu()
        return next(device for device in self._ggml.devices() if device.handle == handle)

    def _embedding(self, home: Backend) -> Embedding:
        table = self._weights(home, [EMBEDDING])[EMBEDDING]
        return self._closing(Embedding(home, table, self._config.d_model))

    def _head(self, backend: Backend) -> Head:
        config = self._config
        matrix = EMBEDDING if config.is_tied else HEAD
        weights = self._weights(backend, [NORM, matrix])
        return self._closing(
            Head(
                backend,
                weights[NORM],
                weights[matrix],
                config.d_model,
                config.vocab_size,
                config.norm_eps,
                is_stable=self._is_stable(backend, weights, matrix),
            )
        )

    def _is_stable(self, backend: Backend, weights: Weights, matrix: str) -> bool:
        info = self._file.tensors[matrix]
        if TensorHead.from_address(weights[matrix]).type != info.type.code:
            return False  # held in another type than it is stored in: not tried
        kind, stored = weights.products.get(matrix), self._mapped.address(info)
        return is_head_stable(backend, weights[matrix], kind, stored)

    def _numerics(self, shares: Sequence[Share]) -> str:
        """Name the arithmetic: of the CPU, each other device that computes, BLAS and our rules."""
        names = [self._kernels] if any(share.backend.is_cpu for share in shares) else []
        names += [
            f"ggml {self._ggml.version}/{share.backend.device.description}"
            for share in shares
            if not share.backend.is_cpu
        ]
        if any(share.weights.uses_blas for share in shares):
            rules = f"{blas_name()} {PRODUCT_RULES}"
            names.append(f"blas~{zlib.crc32(rules.encode()):08x}")
        elif any(share.weights.has_rounded for share in shares):
            names.append(f"rules~{PRODUCT_RULES}")
        return "+".join(names)

    def _backend(self, device: Device) -> Backend:
        return self._closing(Backend(self._ggml, device))

    def _weights(self, backend: Backend, names: Iterable[str]) -> Weights:
        return self._closing(
            Weights(
                backend,
                self._file,
                self._mapped,
                names,
                check=self._check,
                done=self._done,
                # ggml reads a divisor for every pair of a head, also where fewer turn.
                room=dict.fromkeys(_DIVISORS, self._config.head_dim // 2),
            )
        )

    def _check(self, info: TensorInfo, view: memoryview) -> None:
        self._tree.check(info, view)
        check_weights(info.name, info.type.name, view)

    def _done(self, size: int) -> None:
        self._taken += size
        self._progress(min(1.0, self._taken / self._total))

    def _of_layers(self, layers: range) -> list[str]:
        """Return the names of all that the layers compute with."""
        names = [name for index in layers for name in self._of_layer(index)]
        return [*names, *(name for name in _DIVISORS if name in self._file.tensors)]

    def _of_layer(self, index: int) -> list[str]:
        return [f"blk.{index}.{name}" for name in layer_shapes(self._config)]

    def _closing(self, thing: ClosesT) -> ClosesT:
        self._made.callback(thing.close)
        return thing
