"""One session's keys and values as numpy arrays."""

import numpy as np

from p2pnode.engine.base import Floats, KvBlock
from p2pnode.engine.kv_slots import Slot


class NumpySlot(Slot):
    """Keys and values in float32.

    A layer's array is [n_kv_heads, capacity, head_dim], so that each head's past is one
    contiguous matrix for BLAS. Memory that is reserved and not yet written costs address space
    only.
    """

    def __init__(self, layers: range, *, n_kv_heads: int, head_dim: int) -> None:
        super().__init__(layers)
        self._heads = n_kv_heads
        self._head_dim = head_dim
        self.keys: list[Floats] = []
        self.values: list[Floats] = []

    def resize(self, capacity: int) -> None:
        self.keys = self._moved(self.keys, capacity)
        self.values = self._moved(self.values, capacity)

    def export(self, positions: range) -> KvBlock:
        cut, count = slice(positions.start, positions.stop), len(positions)
        width = self._heads * self._head_dim
        block = np.empty((len(self.layers), 2, count, width), np.float32)
        for number, sides in enumerate(zip(self.keys, self.values, strict=True)):
            for side, array in enumerate(sides):
                rows = array[:, cut].transpose(1, 0, 2)  # [positions, kv_heads, head_dim]
                block[number, side] = rows.reshape(count, width)
        return block

    def put(self, block: KvBlock) -> None:
        count = block.shape[2]
        end = self.length + count
        for number, sides in enumerate(zip(self.keys, self.values, strict=True)):
            for side, array in enumerate(sides):
                new = block[number, side].reshape(count, self._heads, self._head_dim)
                array[:, self.length : end] = new.transpose(1, 0, 2)

    def free(self) -> None:
        self.keys, self.values = [], []

    def _moved(self, arrays: list[Floats], capacity: int) -> list[Floats]:
        shape = (self._heads, capacity, self._head_dim)
        moved = [np.empty(shape, np.float32) for _ in self.layers]
        for new, old in zip(moved, arrays, strict=False):  # none at first
            new[:, : self.length] = old[:, : self.length]
        return moved
