"""Version 1 of the capability ad: one model, at fixed places; what nodes before version 2 read."""

import struct
from collections.abc import Mapping
from typing import Any, Final

from p2pnode.errors import RemoteProtocolError

MAX_AD_V1: Final = 320

_V1 = struct.Struct("<BBIHIHHIIIIQQI")
_NUMBERS: Final = (
    "state",
    "space_hash32",
    "n_layers",
    "d_model",
    "first_layer",
    "layer_count",
    "decode_fixed_us",
    "decode_layer_us",
    "head_us",
    "prefill_layer_ns",
    "kv_free_bytes",
    "kv_total_bytes",
    "dtypes",
)
_TEXTS: Final = ("name", "model", "device")
SAID_V1: Final = (*_NUMBERS, *_TEXTS, "abilities", "reads")
"""What it tells of an ad, by the names of its fields."""

_DTYPES: Final = (1 << 24) - 1
_ABILITIES_AT: Final = 24  # seven bits; readers of version 1 alone pass them over
_READS_V2: Final = 1 << 31


def encode_v1(said: Mapping[str, Any]) -> bytes:
    """Return the bytes that say what :data:`SAID_V1` names."""
    mask = said["dtypes"] & _DTYPES | (said["abilities"] & 0x7F) << _ABILITIES_AT
    if said["reads"] > 1:
        mask |= _READS_V2
    numbers = [mask if name == "dtypes" else said[name] for name in _NUMBERS]
    texts = [said[name].encode() for name in _TEXTS]
    return _V1.pack(1, *numbers) + b"".join(bytes((len(raw),)) + raw for raw in texts)


def decode_v1_untrusted(data: bytes) -> dict[str, Any]:
    """Return what the bytes say, by the names in :data:`SAID_V1`; ``reads`` is 2 where it is more.

    Raises:
        RemoteProtocolError: They are none of version 1.
    """
    try:
        _, *numbers = _V1.unpack_from(data)
        said: dict[str, Any] = dict(zip(_NUMBERS, numbers, strict=True))
        at = _V1.size
        for name in _TEXTS:
            if at >= len(data) or at + 1 + data[at] > len(data):
                raise RemoteProtocolError("an ad that ends inside a text")
            said[name] = data[at + 1 : at + 1 + data[at]].decode()
            at += 1 + data[at]
    except (struct.error, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"malformed capability ad: {error}") from error
    if at != len(data):
        raise RemoteProtocolError("an ad with bytes after its end")
    mask = said["dtypes"]
    return said | {
        "dtypes": mask & _DTYPES,
        "abilities": mask >> _ABILITIES_AT & 0x7F,
        "reads": 2 if mask & _READS_V2 else 1,
    }
