"""Which matrices the CPU holds in a second form for the sake of long batches, and what that takes.

What the library expands at one nanosecond a weight or more is as slow by BLAS as by the library's
own kernel. Such matrices are kept as integers of a byte (:mod:`.coded`). That takes more memory
than the file does, so it is bounded: a type's matrices have it, all of a model's or none, by a rule
that its header alone decides. So whoever holds a part of a model computes the same bits.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo

_ALWAYS: Final = 512 * 2**20
"""Bytes that the second forms of any model may take: a guess at what nobody misses."""

_SHARE: Final = 2
"""A larger model may take half the size of its file for them. A mixture of Q4_K and Q6_K has a
fifth of its weights in Q6_K and needs a third; one of Q6_K alone would need one and a half, and
goes without."""

_EIGHT: Final = 8 * TENSOR_TYPES[Type.Q8_0].size  # of 256 weights

_TAKES: Final[dict[int, int]] = {  # bytes of a block
    Type.IQ3_S: _EIGHT,  # instead of what is mapped
    Type.IQ3_XXS: _EIGHT,  # likewise
    Type.IQ2_XXS: 256 + 8 * 4,  # codes and scales
    Type.IQ2_S: 256 + 16 * 4,
    Type.IQ2_XS: 256 + 16 * 4,
    Type.IQ4_XS: 256 + 8 * 4,
    Type.Q5_1: 32 + 4 + 4,  # codes, a scale, and what is added to each number
    Type.Q6_K: 256 + 16 * 4,
    Type.Q5_0: TENSOR_TYPES[Type.Q8_0].size,  # instead of what is mapped
    Type.IQ1_M: 256 + 16 * 4,
    Type.IQ1_S: 256 + 8 * 4,
    Type.Q3_K: 256 + 4,
    Type.Q2_K: 256 + 4 + 16 * 4,
}
"""Those that gain the most time for their memory come first: with 64 rows 2.5 ns a weight for IQ3
and IQ2, 0.9 to 1.5 up to Q5_0, 0.6 to 0.2 from there on (docs/figures.md)."""

_SPLIT: Final = TENSOR_TYPES[Type.Q4_0].size + 4  # bytes of a block of Q4_1, see :mod:`.split`
_BLOCK: Final = 32

ENDS: Final = frozenset({"token_embd.weight", "output.weight"})
"""They never see a long batch."""


def second_bytes(info: TensorInfo) -> int:
    """Return what a second form of a tensor takes, in bytes; 0 for one that needs none."""
    per_block = _TAKES.get(info.type.code, 0)
    if not per_block or len(info.shape) != 2 or info.name in ENDS:
        return 0
    return info.rows * info.shape[-1] // info.type.block * per_block


def split_bytes(info: TensorInfo) -> int:
    """Return what :mod:`.split` makes of a tensor takes at most, in bytes, however large the model.

    Nothing where the library has a quick kernel for Q4_1: only a loaded library can tell.
    """
    if info.type.code != Type.Q4_1 or len(info.shape) != 2 or info.name in ENDS:
        return 0
    return info.rows * info.shape[-1] // _BLOCK * _SPLIT


def second_types(tensors: Iterable[TensorInfo]) -> frozenset[int]:
    """Return the types of which a model with these tensors has second forms.

    In the order of what they gain, each that still fits into what a model's may take.
    """
    needed, stored = Counter[int](), 0
    for info in tensors:
        needed[info.type.code] += second_bytes(info)
        stored += info.size
    room, taken = max(_ALWAYS, stored // _SHARE), set[int]()
    for code in _TAKES:
        if 0 < needed[code] <= room:
            room -= needed[code]
            taken.add(code)
    return frozenset(taken)
