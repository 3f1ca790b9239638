"""One session's keys and values as arrays of JAX."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from p2pnode.engine.base import KvBlock
from p2pnode.engine.jax.programs import kv_lengths
from p2pnode.engine.jax.runtime import Device, JaxArray, device_errors
from p2pnode.engine.kv_slots import Slot

_FOR_KV = "for the session's KV cache"


class JaxSlot(Slot):
    """Keys and values of each layer, in segments [n_kv_heads, size, head_dim].

    A cache grows by another segment, so nothing is ever moved, and a call looks at as many of them
    as hold its rows: how large the slot is changes no result.

    Attributes:
        keys: For each layer, its segments.
        values: Likewise.
        is_tainted: Whether it may hold numbers that are not finite.
    """

    def __init__(
        self, layers: range, *, heads: int, head_dim: int, dtype: str, context: int, device: Device
    ) -> None:
        super().__init__(layers)
        self.keys: list[list[JaxArray]] = [[] for _ in layers]
        self.values: list[list[JaxArray]] = [[] for _ in layers]
        self.is_tainted = False
        self._heads = heads
        self._head_dim = head_dim
        self._dtype = np.dtype(dtype)
        self._bounds = (0, *kv_lengths(context))
        self._device = device
        self._is_rest_tainted = False

    @property
    def is_whole(self) -> bool:
        """Whether all arrays are there: a call that fails may take some with it."""
        return not any(array.is_deleted() for segments in self._sides() for array in segments)

    def segments(self, positions: int) -> int:
        """Return how many segments hold so many positions, at least one."""
        return next(n for n, bound in enumerate(self._bounds) if bound >= positions > 0)

    def resize(self, capacity: int) -> None:
        had = len(self.keys[0])
        bounds = self._bounds[had : self.segments(capacity) + 1]
        sizes = [end - start for start, end in itertools.pairwise(bounds)]
        with device_errors(_FOR_KV):
            new = [[self._empty(size) for size in sizes] for _ in self._sides()]
            jax.block_until_ready(new)
        for segments, more in zip(self._sides(), new, strict=True):
            segments.extend(more)

    def truncate(self, length: int) -> None:
        self._is_rest_tainted |= self.is_tainted and length < self.length
        super().truncate(length)

    def taint_rest(self) -> None:
        """Note that anything may lie beyond the cached positions: a call failed."""
        self._is_rest_tainted = True

    def clean_rest(self) -> None:
        """Write zeros over what is not cached where it may be no numbers.

        Attention gives what lies beyond the last position the weight 0, but 0 times NaN is NaN.
        """
        if self._is_rest_tainted:
            self._write(range(self.length, self._bounds[len(self.keys[0])]), None)
            self._is_rest_tainted = False

    def export(self, positions: range) -> KvBlock:
        width = self._heads * self._head_dim
        block = np.empty((len(self.layers), 2, len(positions), width), self._dtype)
        flat = block.reshape(2 * len(self.layers), len(positions), width)
        with device_errors("to copy a KV cache"):
            for rows, segments in zip(flat, self._sides(), strict=True):
                for number, within, at in self._pieces(positions):
                    part = np.asarray(segments[number].addressable_data(0))[:, within]
                    rows[at] = part.transpose(1, 0, 2).reshape(-1, width)
        return block

    def put(self, block: KvBlock) -> None:
        self.clean_rest()
        self._write(range(self.length, self.length + block.shape[2]), block)

    def free(self) -> None:
        self.keys, self.values = [], []

    def _write(self, positions: range, block: KvBlock | None) -> None:
        """Write a block, or zeros, at these positions."""
        count = len(positions)
        shape = (2 * len(self.layers), count, self._heads, self._head_dim)
        flat = np.broadcast_to(np.zeros((), self._dtype), shape)
        if block is not None:
            flat = block.reshape(shape)
        with device_errors(_FOR_KV):
            for rows, segments in zip(flat, self._sides(), strict=True):
                for number, within, at in self._pieces(positions):
                    array = np.array(segments[number].addressable_data(0))
                    array[:, within] = rows[at].transpose(1, 0, 2)
                    # An array that shares numpy's memory could not be written in place later.
                    segments[number] = jax.device_put(array, self._device, may_alias=False)

    def _pieces(self, positions: range) -> Iterator[tuple[int, slice, slice]]:
        """Yield the segments that positions lie in: number, places in there, places in a block."""
        for number, (start, end) in enumerate(itertools.pairwise(self._bounds)):
            first, last = max(start, positions.start), min(end, positions.stop)
            if first < last:
                within = slice(first - start, last - start)
                yield number, within, slice(first - positions.start, last - positions.start)

    def _sides(self) -> Iterator[list[JaxArray]]:
        """Yield each layer's keys and then its values, as a KV block has them."""
        for keys, values in zip(self.keys, self.values, strict=True):
            yield keys
            yield values

    def _empty(self, size: int) -> JaxArray:
        return jnp.zeros((self._heads, size, self._head_dim), self._dtype, device=self._device)
