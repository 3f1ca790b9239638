"""Weights that are no numbers: a file may be whole, and hold what a training left that failed.

An engine that multiplies in 8 bits makes numbers of them again, which mean nothing and look like
any others. So a file is refused when it is loaded: every float that a tensor stores is looked at,
which in quantised types are the scales of its blocks.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.gguf_header import TENSOR_TYPES
from p2pnode.errors import ModelError

_HALF: Final[tuple[np.dtype[Any], int]] = np.dtype("<u2"), 0x7C00
_LAYOUTS: Final[dict[str, tuple[np.dtype[Any], int]]] = {
    "F32": (np.dtype("<u4"), 0x7F80_0000),
    "F16": _HALF,
    "BF16": (np.dtype("<u2"), 0x7F80),
}
"""Unsigned integers as wide as a float, and the bits of its exponent."""

_SCALES: Final = {  # where the float16 of a block begin, in bytes
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ1_S"), (0,)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
_NO_SCALE: Final = 255  # of MXFP4, by the specification of microscaling formats; NVFP4 has none
_AT_ONCE: Final = 2**20  # numbers looked at together
_TYPES: Final = {kind.name: kind for kind in TENSOR_TYPES.values()}

Bits: TypeAlias = npt.NDArray[np.integer[Any]]


def check_weights(name: str, kind: str, data: bytes | bytearray | memoryview) -> None:
    """Take a tensor's bytes as they are stored; ``kind`` as a file of GGUF or safetensors names it.

    Raises:
        ModelError: One of its numbers, or of its scales, is infinite or none.
    """
    for floats, exponent in _floats(kind, data):
        for start in range(0, len(floats), _AT_ONCE):
            if (floats[start : start + _AT_ONCE] & exponent).max(initial=0) == exponent:
                raise ModelError(
                    f"the weights {name} are not all numbers: an infinity or a NaN is among them",
                    hint="The file was written so: use another file of this model.",
                )


def _floats(kind: str, data: bytes | bytearray | memoryview) -> Iterator[tuple[Bits, int]]:
    """Yield [n], the floats of a tensor as integers, with the exponent of what is no number."""
    stored = np.frombuffer(data, np.uint8)
    if kind in _LAYOUTS:
        layout, exponent = _LAYOUTS[kind]
        yield stored.view(layout), exponent
        return
    blocks = stored.reshape(-1, _TYPES[kind].size)
    layout, exponent = _HALF
    for at in _SCALES.get(kind, ()):
        yield blocks[:, at : at + layout.itemsize].view(layout)[:, 0], exponent
    if kind == "IQ1_M":  # the scale's highest bits are those of the last two of four words
        words = blocks[:, 48:].view(layout)
        yield (words[:, 3] & 0xF000) | (words[:, 2] >> 4 & 0x0F00), exponent
    if kind == "MXFP4":
        yield blocks[:, 0], _NO_SCALE
