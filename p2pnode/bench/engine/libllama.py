"""The part of libllama's C interface that its callers here share; nothing is loaded yet."""

import ctypes
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

PARAMS_BYTES: Final = 512
"""More than the structures passed by value have; the library reads and writes its own part."""

LOG_ERROR: Final = 4

# Offsets in llama_context_params, each with its default, by which another layout is noticed.
N_CTX: Final = (0, 512)
N_BATCH: Final = (4, 2048)
N_UBATCH: Final = (8, 512)
N_THREADS: Final = (28, 4)  # of one token
N_THREADS_BATCH: Final = (32, 4)
FLASH_ATTENTION: Final = (52, -1)
TYPE_K: Final = (104, 1)
TYPE_V: Final = (108, 1)
KNOWN: Final = (
    *(N_CTX, N_BATCH, N_UBATCH, N_THREADS, N_THREADS_BATCH),
    *(FLASH_ATTENTION, TYPE_K, TYPE_V),
)

LogCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Params(ctypes.Structure):
    """The parameters of a model, or of a context."""

    _fields_ = (("bytes", ctypes.c_uint8 * PARAMS_BYTES),)


class Batch(ctypes.Structure):
    """Tokens to be computed at once."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


Function: TypeAlias = tuple[str, Any, list[Any]]
"""Its name, what it returns, and what it takes."""

POINTER: Final = ctypes.c_void_p
FUNCTIONS: Final[tuple[Function, ...]] = (
    ("llama_log_set", None, [LogCallback, POINTER]),
    ("llama_model_default_params", Params, []),
    ("llama_context_default_params", Params, []),
    ("llama_model_load_from_file", POINTER, [ctypes.c_char_p, Params]),
    ("llama_init_from_model", POINTER, [POINTER, Params]),
    ("llama_model_get_vocab", POINTER, [POINTER]),
    ("llama_vocab_n_tokens", ctypes.c_int32, [POINTER]),
    ("llama_decode", ctypes.c_int32, [POINTER, Batch]),
    ("llama_batch_init", Batch, [ctypes.c_int32] * 3),
    ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [POINTER, ctypes.c_int32]),
    ("ggml_version", ctypes.c_char_p, []),
)


def declare(library: ctypes.CDLL, functions: Iterable[Function]) -> None:
    """Tell ctypes what functions take and return.

    Raises:
        AttributeError: The library lacks one.
    """
    for name, result, arguments in functions:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
