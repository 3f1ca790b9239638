"""Logprobs as a slice beside the token they are of: one row of bytes."""

import math
import struct

from p2pnode.engine.sampling.logprobs import LEAST, Logprobs
from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

_CHOSEN = struct.Struct("<f")
_TOP = struct.Struct("<If")  # a token and its logprob


def logprob_slice(logprobs: Logprobs) -> Slice:
    """Return I8 [1, 4 + 8n]: that of the token, then the n likeliest with theirs."""
    payload = _CHOSEN.pack(logprobs.chosen) + b"".join(_TOP.pack(*one) for one in logprobs.top)
    return Slice(DType.I8, (1, len(payload)), payload)


def logprobs_untrusted(piece: Slice, asked: int, vocab_size: int) -> Logprobs:
    """Read a slice that holds the ``asked`` likeliest.

    Raises:
        RemoteProtocolError: It holds something else.
    """
    count = min(asked, vocab_size)
    if piece.dtype != DType.I8 or len(piece.payload) != _CHOSEN.size + count * _TOP.size:
        raise RemoteProtocolError(f"logprobs of {asked} tokens were asked for, and others came")
    (chosen,) = _CHOSEN.unpack_from(piece.payload)
    top = tuple(_TOP.iter_unpack(bytes(piece.payload[_CHOSEN.size :])))
    for logprob in (chosen, *(logprob for _, logprob in top)):
        if not (math.isfinite(logprob) and LEAST <= logprob <= 0):
            raise RemoteProtocolError(f"{logprob} is the logarithm of no probability")
    if any(token >= vocab_size for token, _ in top):
        raise RemoteProtocolError(f"a logprob of a token beyond the vocabulary of {vocab_size}")
    return Logprobs(chosen, top)
