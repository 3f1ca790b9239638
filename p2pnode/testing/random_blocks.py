"""Blocks of any bytes of the quantised types, but for scales, which are chosen."""

from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.gguf_header import TensorType

_AT: Final = {"Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}
"""Where the float16 of a block lie; at its start in most types."""

_WORDS: Final = range(48, 56, 2)  # of IQ1_M: their highest four bits each are one float16


def random_blocks(kind: TensorType, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return blocks [count, bytes] whose scales are finite, some of them negative."""
    blocks = rng.integers(0, 256, (count, kind.size), np.uint8)
    set_scales(kind, blocks, rng.standard_normal(count).astype(np.float16) / np.float16(32))
    return blocks


def set_scales(
    kind: TensorType, blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.float16] | float
) -> None:
    """Make the scales of blocks [count, bytes] others."""
    halves = np.broadcast_to(np.asarray(scales, np.float16), len(blocks)).copy()
    if kind.name == "IQ1_M":
        bits = halves.view(np.uint16)
        for shift, at in enumerate(_WORDS):
            highest = (bits >> np.uint16(4 * shift)).astype(np.uint8) << np.uint8(4)
            blocks[:, at + 1] = blocks[:, at + 1] & np.uint8(15) | highest
        return
    for at in _AT.get(kind.name, (0,)):
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
