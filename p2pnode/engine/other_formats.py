"""What people take for a GGUF file and is none, told by how it begins, whatever it is called."""

import warnings
from contextlib import suppress
from itertools import islice
from typing import Final

from p2pnode.errors import ModelError

AS_GGUF: Final = "Fetch the model as a GGUF file: most are published as one (p2pnode models list)."
_PICKLES: Final = frozenset({b"\x02", b"\x03", b"\x04", b"\x05"})  # protocols, after b"\x80"
_OLD_PICKLE: Final = 4096  # bytes that are looked at; eight operations have a hundred
_FIRST: Final = frozenset({"GLOBAL", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"})
"""What a checkpoint's pickle without a mark begins with."""
_NOTED: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})  # soon after: it may be meant again


def foreign(data: bytes, name: str) -> ModelError:
    """Say what a file is that is none of GGUF, where it is one of those that people come upon.

    ``data`` is its beginning; some 100 bytes tell.
    """
    start = data[:64].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return ModelError(
            f"{name} is a pointer of Git LFS, not the model itself",
            hint="Fetch it with git lfs pull, or download it from where it is published.",
        )
    if start.startswith(b"<"):
        return ModelError(
            f"{name} is a web page, not a model", hint="Download the file itself, not its page."
        )
    if data[:4] in {b"lmgg", b"tjgg", b"fmgg"}:
        return ModelError(
            f"{name} is of the format before GGUF, which nobody reads any more",
            hint="Fetch another file of this model, or convert it anew.",
        )
    if data[8:9] == b"{" and data[4:8] == bytes(4):  # the length of its header, and the header
        return ModelError(
            f"{name} holds safetensors, which this engine does not read", hint=AS_GGUF
        )
    if data[:2] == b"PK" or (data[:1] == b"\x80" and data[1:2] in _PICKLES) or _is_old_pickle(data):
        return ModelError(
            f"{name} is a checkpoint of pickled Python: to read it is to run what it says, so it "
            "is never opened",
            hint=AS_GGUF,
        )
    return ModelError(f"{name} is not a GGUF file", hint="Give the path of a .gguf file.")


def _is_old_pickle(data: bytes) -> bool:
    """Tell whether something begins as a pickle of protocol 0 or 1, which has no mark."""
    import pickletools  # it names what a pickle would do, and does none of it

    names: list[str] = []
    with suppress(ValueError), warnings.catch_warnings():  # the bytes are none, or end within one
        warnings.simplefilter("ignore")  # of what a text in them is like
        for operation, _, _ in islice(pickletools.genops(data[:_OLD_PICKLE]), 8):
            names.append(operation.name)
    return bool(names) and names[0] in _FIRST and not _NOTED.isdisjoint(names)
