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

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.providers import Provider
from p2pnode.errors import EngineError

_PARAMS_BYTES: Final = 512
"""More than the structures passed by value have; the library reads and writes its own part."""

# Offsets in llama_context_params, and the defaults that show the layout to be the known one.
_N_CTX: Final = (0, 512)
_N_BATCH: Final = (4, 2048)
_N_UBATCH: Final = (8, 512)
_THREADS: Final = ((28, 4), (32, 4))  # of one token, of a batch
_KNOWN: Final = (_N_CTX, _N_BATCH, _N_UBATCH, *_THREADS, (52, -1), (104, 1), (108, 1))

_LOG_ERROR: Final = 4
_LogCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _Params(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * _PARAMS_BYTES),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_POINTER: Final = ctypes.c_void_p
_FUNCTIONS: Final[tuple[tuple[str, Any, list[Any]], ...]] = (
    ("llama_log_set", None, [_LogCallback, _POINTER]),
    ("llama_model_default_params", _Params, []),
    ("llama_context_default_params", _Params, []),
    ("llama_model_load_from_file", _POINTER, [ctypes.c_char_p, _Params]),
    ("llama_init_from_model", _POINTER, [_POINTER, _Params]),
    ("llama_model_get_vocab", _POINTER, [_POINTER]),
    ("llama_vocab_n_tokens", ctypes.c_int32, [_POINTER]),
    ("llama_get_memory", _POINTER, [_POINTER]),
    ("llama_memory_clear", None, [_POINTER, ctypes.c_bool]),
    ("llama_decode", ctypes.c_int32, [_POINTER, _Batch]),
    ("llama_batch_init", _Batch, [ctypes.c_int32] * 3),
    ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [_POINTER, ctypes.c_int32]),
    ("ggml_version", ctypes.c_char_p, []),
)


def _keep_errors(level: int, text: bytes, _: Any) -> None:  # noqa: ANN401, C's
    if level == _LOG_ERROR and text:
        _said.append(text.decode("utf-8", "replace").strip()[:200])
        del _said[:-3]


_said: Final[list[str]] = []
_KEEP_ERRORS: Final = _LogCallback(_keep_errors)


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
        self._batch = self._lib.llama_batch_init(_N_BATCH[1], 0, 1)
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

    def _params(self, threads: int, positions: int) -> _Params:
        params: _Params = self._lib.llama_context_default_params()
        data = bytes(params.bytes)
        if any(struct.unpack_from("<i", data, at) != (value,) for at, value in _KNOWN):
            raise EngineError("this version of llama.cpp is not known here")
        for (at, _), value in (
            (_N_CTX, positions),
            *((offset, threads) for offset in _THREADS),
        ):
            struct.pack_into("<i", params.bytes, at, value)
        return params


def _open(path: Path, name: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        for function, result, arguments in _FUNCTIONS:
            found = getattr(library, function)
            found.restype, found.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EngineError(f"{name} has no libllama that can be used: {error}") from error
    library.llama_log_set(_KEEP_ERRORS, None)
    return library
