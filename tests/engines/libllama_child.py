"""A process that holds llama.cpp, alone: two copies of ggml in one process clash.

It reads requests on its standard input, a line of JSON and then the bytes it names, and answers
likewise. Run by ``libllama.py``; the structures are those of the one pinned version of xllamacpp.
"""

import ctypes
import json
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

_CONTEXT_BYTES: Final = 512
"""More than the structures that llama.cpp takes by value have: it reads and writes its own part."""

# Offsets in `llama_context_params`, each with its default, by which another layout is noticed.
_N_CTX, _N_BATCH, _N_UBATCH = (0, 512), (4, 2048), (8, 512)
_N_OUTPUTS, _N_THREADS, _N_THREADS_BATCH = (20, 0), (28, 4), (32, 4)
_FLASH_ATTENTION, _TYPE_K, _TYPE_V = (52, -1), (104, 1), (108, 1)
_KNOWN = (
    *(_N_CTX, _N_BATCH, _N_UBATCH, _N_OUTPUTS, _N_THREADS, _N_THREADS_BATCH),
    *(_FLASH_ATTENTION, _TYPE_K, _TYPE_V),
)
_KV_TYPES: Final = {"f32": 0, "f16": 1}


class _Opaque(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * _CONTEXT_BYTES),)


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


class _TypeTraits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def _only_errors(level: int, text: bytes, _: Any) -> None:
    if level >= 4:  # GGML_LOG_LEVEL_ERROR
        sys.stderr.write(text.decode(errors="replace"))


_ONLY_ERRORS = _LogCallback(_only_errors)


def _library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    pointer, params = ctypes.c_void_p, _Opaque
    for name, result, arguments in (
        ("llama_log_set", None, [_LogCallback, pointer]),
        ("llama_model_default_params", params, []),
        ("llama_context_default_params", params, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, params]),
        ("llama_init_from_model", pointer, [pointer, params]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", ctypes.c_int32, [pointer]),
        ("llama_model_free", None, [pointer]),
        ("llama_free", None, [pointer]),
        ("llama_decode", ctypes.c_int32, [pointer, _Batch]),
        ("llama_batch_init", _Batch, [ctypes.c_int32] * 3),
        ("llama_batch_free", None, [_Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32]),
        ("llama_version", ctypes.c_char_p, []),
        ("ggml_version", ctypes.c_char_p, []),
        ("ggml_get_type_traits", ctypes.POINTER(_TypeTraits), [ctypes.c_int]),
        ("ggml_row_size", ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]),
        ("ggml_quantize_requires_imatrix", ctypes.c_bool, [ctypes.c_int]),
        (
            "ggml_quantize_chunk",
            ctypes.c_size_t,
            [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer],
        ),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_ONLY_ERRORS, None)
    return library


class _Worker:
    def __init__(self) -> None:
        self._lib = _library()
        found = bytes(self._lib.llama_context_default_params().bytes)
        for offset, expected in _KNOWN:
            (value,) = struct.unpack_from("<i", found, offset)
            assert value == expected, f"llama_context_params changed: {value} at {offset}"

    def versions(self, _: dict[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        llama, ggml = self._lib.llama_version().decode(), self._lib.ggml_version().decode()
        return {"llama": llama, "ggml": ggml}, b""

    def logits(self, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Answer with the logits [tokens, vocab] of token ids (int32) in one sequence."""
        ids = np.frombuffer(body, np.int32)
        lib = self._lib
        model = lib.llama_model_load_from_file(
            request["path"].encode(), lib.llama_model_default_params()
        )
        if not model:
            return {"error": f"llama.cpp refuses {request['path']}"}, b""
        context = lib.llama_init_from_model(model, self._context_params(request, len(ids)))
        if not context:
            lib.llama_model_free(model)
            return {"error": "llama.cpp makes no context"}, b""
        try:
            size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
            rows: list[Any] = []
            for chunk in np.split(ids, request["cuts"]):
                start = len(rows)
                code = self._decode(context, chunk, start)
                if code != 0:
                    return {"error": f"llama_decode says {code} at {start}"}, b""
                for row in range(len(chunk)):
                    found = lib.llama_get_logits_ith(context, row)
                    rows.append(np.ctypeslib.as_array(found, (size,)).copy())
            return {"shape": [len(rows), size]}, np.stack(rows).tobytes()
        finally:
            lib.llama_free(context)
            lib.llama_model_free(model)

    def _context_params(self, request: dict[str, Any], tokens: int) -> _Opaque:
        params: _Opaque = self._lib.llama_context_default_params()
        kv = _KV_TYPES[request["kv"]]
        for (offset, _), value in (
            (_N_CTX, request["n_ctx"]),
            (_N_BATCH, max(tokens, 512)),
            (_N_OUTPUTS, 0),
            (_N_THREADS, request["threads"]),
            (_N_THREADS_BATCH, request["threads"]),
            (_FLASH_ATTENTION, int(request["flash"])),
            (_TYPE_K, kv),
            (_TYPE_V, kv),
        ):
            struct.pack_into("<i", params.bytes, offset, value)
        return params

    def _decode(self, context: Any, ids: Any, start: int) -> int:
        batch = self._lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for at, token in enumerate(ids.tolist()):
                batch.token[at], batch.pos[at] = token, start + at
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
                batch.logits[at] = 1
            return int(self._lib.llama_decode(context, batch))
        finally:
            self._lib.llama_batch_free(batch)

    def quantize(self, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Answer with rows (float32, of ``width``) in ggml's own encoding of a type."""
        kind, width = request["kind"], request["width"]
        rows = np.frombuffer(body, np.float32).reshape(-1, width)
        out = np.empty((len(rows), self._lib.ggml_row_size(kind, width)), np.uint8)
        needs = self._lib.ggml_quantize_requires_imatrix(kind)
        importance = np.ones(width, np.float32) if needs else None
        written = self._lib.ggml_quantize_chunk(
            kind,
            rows.ctypes.data,
            out.ctypes.data,
            0,
            len(rows),
            width,
            importance.ctypes.data if importance is not None else None,
        )
        assert written == out.nbytes
        return {"shape": list(out.shape)}, out.tobytes()

    def dequantize(self, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Answer with what ggml itself reads (float32) in rows of an encoding."""
        kind, width = request["kind"], request["width"]
        rows = np.frombuffer(body, np.uint8)
        count = rows.nbytes // self._lib.ggml_row_size(kind, width)
        traits = self._lib.ggml_get_type_traits(kind).contents
        out = np.empty((count, width), np.float32)
        traits.to_float(rows.ctypes.data, out.ctypes.data, out.size)
        return {"shape": list(out.shape)}, out.tobytes()


def main() -> None:
    worker = _Worker()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        request = json.loads(line)
        answer, body = getattr(worker, request["what"])(request, source.read(request["bytes"]))
        sink.write(json.dumps({**answer, "bytes": len(body)}).encode() + b"\n" + body)
        sink.flush()


if __name__ == "__main__":
    main()
