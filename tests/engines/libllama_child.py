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

from p2pnode.bench.engine.libllama import (
    FLASH_ATTENTION,
    FUNCTIONS,
    KNOWN,
    LOG_ERROR,
    N_BATCH,
    N_CTX,
    N_THREADS,
    N_THREADS_BATCH,
    POINTER,
    TYPE_K,
    TYPE_V,
    Batch,
    LogCallback,
    Params,
    declare,
)

_N_OUTPUTS: Final = (20, 0)
_KNOWN: Final = (*KNOWN, _N_OUTPUTS)
_KV_TYPES: Final = {"f32": 0, "f16": 1}


class _TypeTraits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def _only_errors(level: int, text: bytes, _: Any) -> None:
    if level >= LOG_ERROR:
        sys.stderr.write(text.decode(errors="replace"))


_ONLY_ERRORS = LogCallback(_only_errors)


_FUNCTIONS: Final = (
    *FUNCTIONS,
    ("llama_model_free", None, [POINTER]),
    ("llama_free", None, [POINTER]),
    ("llama_batch_free", None, [Batch]),
    ("llama_version", ctypes.c_char_p, []),
    ("ggml_get_type_traits", ctypes.POINTER(_TypeTraits), [ctypes.c_int]),
    ("ggml_row_size", ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]),
    ("ggml_quantize_requires_imatrix", ctypes.c_bool, [ctypes.c_int]),
    (
        "ggml_quantize_chunk",
        ctypes.c_size_t,
        [ctypes.c_int, POINTER, POINTER, *[ctypes.c_int64] * 3, POINTER],
    ),
)


def _library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    declare(library, _FUNCTIONS)
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

    def _context_params(self, request: dict[str, Any], tokens: int) -> Params:
        params: Params = self._lib.llama_context_default_params()
        kv = _KV_TYPES[request["kv"]]
        for (offset, _), value in (
            (N_CTX, request["n_ctx"]),
            (N_BATCH, max(tokens, 512)),
            (_N_OUTPUTS, 0),
            (N_THREADS, request["threads"]),
            (N_THREADS_BATCH, request["threads"]),
            (FLASH_ATTENTION, int(request["flash"])),
            (TYPE_K, kv),
            (TYPE_V, kv),
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
