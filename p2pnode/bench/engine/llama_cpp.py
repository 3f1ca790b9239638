"""llama.cpp as a contestant: libllama through ctypes, with what it takes by itself.

libllama's structures change with its versions. Only a few numbers of them are written here, and
only where the library's own defaults lie where they are expected; others are refused.
"""

import ctypes
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from p2pnode.bench.engine.libllama import (
    FUNCTIONS,
    KNOWN,
    LOG_ERROR,
    N_BATCH,
    N_CTX,
    N_THREADS,
    N_THREADS_BATCH,
    POINTER,
    LogCallback,
    Params,
    declare,
)
from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.providers import Provider
from p2pnode.errors import EngineError

_FUNCTIONS: Final = (
    *FUNCTIONS,
    ("llama_get_memory", POINTER, [POINTER]),
    ("llama_memory_clear", None, [POINTER, ctypes.c_bool]),
)


def _keep_errors(level: int, text: bytes, _: Any) -> None:  # noqa: ANN401, C's
    if level == LOG_ERROR and text:
        _said.append(text.decode("utf-8", "replace").strip()[:200])
        del _said[:-3]


_said: Final[list[str]] = []
_KEEP_ERRORS: Final = LogCallback(_keep_errors)


class LlamaCpp:
    """See :class:`p2pnode.bench.engine.runner.Runner`.

    Args:
        provider: A package with libllama.
        path: The model.
        threads: Of every batch.
        positions: Of its one sequence.

    Raises:
        EngineError: The library is of another version, or refuses the model.
    """

    def __init__(self, provider: Provider, path: Path, threads: int, positions: int) -> None:
        self._lib = _open(provider.libraries[-1], provider.name)
        self.device = f"cpu x{threads}"
        self.numerics = f"llama.cpp, ggml {self._lib.ggml_version().decode()}"
        model = self._lib.llama_model_load_from_file(
            str(path).encode(), self._lib.llama_model_default_params()
        )
        if not model:
            raise EngineError(f"llama.cpp refuses {path.name}: {' '.join(_said)}")
        self._size = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(model))
        self._context = self._lib.llama_init_from_model(model, self._params(threads, positions))
        if not self._context:
            raise EngineError(f"llama.cpp makes no context: {' '.join(_said)}")
        self._batch = self._lib.llama_batch_init(N_BATCH[1], 0, 1)
        self._length = 0

    def feed(self, ids: Sequence[int], *, every: bool) -> Floats:
        batch, count = self._batch, len(ids)
        batch.n_tokens = count
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at] = token, self._length + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = every or at == count - 1
        code = self._lib.llama_decode(self._context, batch)
        if code:
            raise EngineError(f"llama_decode says {code}: {' '.join(_said)}")
        self._length += count
        rows = range(count) if every else [count - 1]
        return np.stack([self._row(row) for row in rows])  # [rows, vocab]

    def reset(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._length = 0

    def python_us(self, ids: Sequence[int]) -> float | None:
        del ids
        return None

    def python_layer_us(self, tokens: int) -> float | None:
        del tokens
        return None

    def _row(self, row: int) -> Floats:
        found = self._lib.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(found, (self._size,)).copy()

    def _params(self, threads: int, positions: int) -> Params:
        params: Params = self._lib.llama_context_default_params()
        data = bytes(params.bytes)
        if any(struct.unpack_from("<i", data, at) != (value,) for at, value in KNOWN):
            raise EngineError("this version of llama.cpp is not known here")
        for (at, _), value in (
            (N_CTX, positions),
            (N_THREADS, threads),
            (N_THREADS_BATCH, threads),
        ):
            struct.pack_into("<i", params.bytes, at, value)
        return params


def _open(path: Path, name: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        declare(library, _FUNCTIONS)
    except (OSError, AttributeError) as error:
        raise EngineError(f"{name} has no libllama that can be used: {error}") from error
    library.llama_log_set(_KEEP_ERRORS, None)
    return library
