"""llama.cpp's own tokens of texts, out of ``xllamacpp``'s library: run as a process of its own.

Standard input has JSON: the file of a model (its vocabulary is enough) and a list of texts.
Standard output gets a list of lists of ids, control tokens not recognised and none added.
"""

import ctypes
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_PARAMS: Final = 512  # bytes; more than what llama.cpp takes by value has
# Where `vocab_only`, `check_tensors` and `use_extra_bufts` lie in it, side by side, in the version
# that is pinned, and what they are by default.
_VOCAB_ONLY: Final = 72
_FLAGS: Final = [0, 0, 1]


class _Opaque(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * _PARAMS),)


_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def _complain(level: int, text: bytes, _: Any) -> None:
    if level >= 4:  # an error
        sys.stderr.write(text.decode(errors="replace"))


_COMPLAIN: Final = _LogCallback(_complain)


def tokens(path: str, texts: list[str]) -> list[list[int]]:
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    (library,) = Path(spec.origin).parent.glob("xllamacpp*.so")
    llama = ctypes.CDLL(str(library))
    llama.llama_log_set(_COMPLAIN, None)
    llama.llama_model_default_params.restype = _Opaque
    llama.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _Opaque]
    llama.llama_model_load_from_file.restype = ctypes.c_void_p
    llama.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    llama.llama_model_get_vocab.restype = ctypes.c_void_p
    llama.llama_tokenize.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p),
        *(ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
    ]
    params = llama.llama_model_default_params()
    flags = list(params.bytes)[_VOCAB_ONLY : _VOCAB_ONLY + len(_FLAGS)]
    assert flags == _FLAGS, "another layout of llama_model_params: which version is this?"
    params.bytes[_VOCAB_ONLY] = 1
    model = llama.llama_model_load_from_file(path.encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    vocabulary = llama.llama_model_get_vocab(model)
    found = []
    for text in texts:
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = llama.llama_tokenize(vocabulary, data, len(data), ids, len(ids), False, False)
        found.append(ids[:count])
    return found


if __name__ == "__main__":
    request = json.load(sys.stdin)
    print(json.dumps(tokens(request["model"], request["texts"])))
