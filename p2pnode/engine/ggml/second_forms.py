"""Which matrices the CPU holds in a second form for the sake of long batches, and what that takes.

What the library expands at one nanosecond a weight or more is as slow by BLAS as by the library's
own kernel. Such matrices are kept as integers of a byte (:mod:`.coded`). That takes more memory
than the file does, so it is done for a whole model or not at all, by a rule that its header alone
decides: whoever holds a part of it computes the same bits.
"""

from collections.abc import Iterable
from typing import Final

from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo

_ALWAYS: Final = 512 * 2**20
"""Bytes that a model's second forms may take however small it is: a guess at what nobody misses."""

_SHARE: Final = 2
"""Those of a larger model may take one part in so many of its file's. A mixture of Q4_K and Q6_K
has a fifth of its weights in Q6_K and needs a third; one of Q6_K alone would need 1.5 of its size,
and goes without."""

_TAKES: Final[dict[int, int]] = {  # bytes of a block of 32 weights
    Type.Q5_0: TENSOR_TYPES[Type.Q8_0].size,  # instead of what is mapped
    Type.Q5_1: 32 + 4 + 4,  # codes, a scale, and what a sum of inputs adds
    Type.Q6_K: 32 + 2 * 4,  # codes and two scales
    Type.IQ4_XS: 32 + 4,
}
_SPLIT: Final = TENSOR_TYPES[Type.Q4_0].size + 4  # bytes of a block of Q4_1, see :mod:`.split`
_BLOCK: Final = 32

ENDS: Final = frozenset({"token_embd.weight", "output.weight"})
"""They never see a long batch."""


def second_bytes(info: TensorInfo) -> int:
    """Return what a second form of a tensor takes, in bytes; 0 for one that needs none."""
    per_block = _TAKES.get(info.type.code, 0)
    if not per_block or len(info.shape) != 2 or info.name in ENDS:
        return 0
    return info.rows * info.shape[-1] // _BLOCK * per_block


def split_bytes(info: TensorInfo) -> int:
    """Return what :mod:`.split` makes of a tensor takes at most, in bytes, however large the model.

    Nothing where the library has a quick kernel for Q4_1: only a loaded library can tell.
    """
    if info.type.code != Type.Q4_1 or len(info.shape) != 2 or info.name in ENDS:
        return 0
    return info.rows * info.shape[-1] // _BLOCK * _SPLIT


def has_second_forms(tensors: Iterable[TensorInfo]) -> bool:
    """Whether those are made of a model with these tensors, all of them."""
    every = [*tensors]
    needed = sum(second_bytes(info) for info in every)
    return needed <= max(_ALWAYS, sum(info.size for info in every) // _SHARE)
