"""One session's keys and values in ggml's tensors, on the devices that hold its layers."""

import itertools
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from p2pnode.engine.base import Floats, KvBlock
from p2pnode.engine.ggml.backend import Backend, Tensors, read, write
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.kv_slots import Slot
from p2pnode.errors import CapacityError

CELLS: Final = 256
"""Attention looks at whole blocks of so many positions: kernels of GPUs ask for that."""

_ALIGNMENT: Final = 64  # bytes; ggml's own is 32 or 64
_versions = itertools.count(1)


class NextRow(Protocol):
    """What runs a session's next row; :class:`p2pnode.engine.ggml.step.NextRow`."""

    def fits(self, start: int) -> bool: ...
    def run(self, x: Floats, start: int) -> Floats: ...


class GgmlSlot(Slot):
    """Keys and values in float16, of each layer [kv_dim, cells] in ggml's order.

    On the CPU what is reserved and not yet written costs address space only.

    Attributes:
        version: Names these tensors: another after each move, so that graphs are told apart.
        is_long: Whether the session takes LongRoPE's divisors for long ones.
        step: What ran a row and may run the next, if it says so; None before the first row.
    """

    def __init__(
        self,
        layers: range,
        *,
        devices: Sequence[tuple[Backend, range]],
        kv_dim: int,
        is_long: Callable[[int], bool],
        moved: Callable[[int], None],
    ) -> None:
        """``moved`` hears a version that is of no more use."""
        super().__init__(layers)
        self.version = 0
        self.is_long = False
        self.step: NextRow | None = None
        self._devices = [
            (backend, run)
            for backend, held in devices
            if (run := range(max(held.start, layers.start), min(held.stop, layers.stop)))
        ]
        self._kv_dim = kv_dim
        self._decide_long = is_long
        self._moved = moved
        self._banks: list[_Bank] = []
        self._placed: tuple[int, range, list[int]] = (0, range(0), [])

    @property
    def cells(self) -> int:
        """Positions that the tensors have room for: whole blocks."""
        return -(-self.capacity // CELLS) * CELLS

    def tensors(self, layer: int) -> tuple[int, int]:
        """Return the keys and the values of a layer, each [kv_dim, cells]."""
        for bank in self._banks:
            if layer in bank.layers:
                return bank.pairs[layer - bank.layers.start]
        raise AssertionError(f"layer {layer} is none of {self.layers}")

    def places(self, layers: range) -> list[int]:
        """Return the addresses of the keys and the values of each of ``layers``, on the CPU."""
        version, known, places = self._placed
        if version != self.version or known != layers:
            pairs = [self.tensors(layer) for layer in layers]
            get_data = self._devices[0][0].ggml.get_data
            places = [get_data(tensor) for pair in pairs for tensor in pair]
            self._placed = self.version, layers, places
        return places

    def resize(self, capacity: int) -> None:
        if not self.length:
            self.is_long = self._decide_long(capacity)
        elif self.is_long != self._decide_long(capacity):
            raise CapacityError(
                "the session outgrew the context its rotary embedding was chosen for",
                hint="Reserve the whole session before its first token.",
            )
        cells = -(-capacity // CELLS) * CELLS
        if self._banks and cells == self.cells:
            return  # there is room already
        kept = self.export(range(self.length)) if self.length else None
        banks: list[_Bank] = []
        try:
            for backend, run in self._devices:
                banks.append(_Bank(backend, run, self._kv_dim, cells))
        except BaseException:
            for bank in banks:
                bank.close()
            raise
        self._let_go()
        self._banks, self.version = banks, next(_versions)
        if kept is not None:
            self._write(kept, 0)

    def export(self, positions: range) -> KvBlock:
        shape = (len(self.layers), 2, len(positions), self._kv_dim)
        block = np.empty(shape, np.float16)
        offset = positions.start * self._kv_dim * 2
        number = 0
        for bank in self._banks:
            for pair in bank.pairs:
                for side, tensor in enumerate(pair):
                    read(bank.backend.ggml, tensor, block[number, side], offset)
                number += 1
        return block

    def put(self, block: KvBlock) -> None:
        self._write(block, self.length)

    def truncate(self, length: int) -> None:
        """Forget; a NaN that stayed would reach attention, where nothing times NaN is NaN.

        So all that is forgotten becomes zero: to look at each row as it is computed costs more.
        """
        self.step = None  # fewer cells may do from here on, as they would have at first
        if length < self.length:
            shape = (len(self.layers), 2, self.length - length, self._kv_dim)
            self._write(np.zeros(shape, np.float16), length)
        super().truncate(length)

    def free(self) -> None:
        self._let_go()

    def _write(self, block: KvBlock, start: int) -> None:
        """Write [layers, 2, positions, kv_dim] from a position on."""
        block = np.ascontiguousarray(block)
        offset = start * self._kv_dim * 2
        number = 0
        for bank in self._banks:
            for pair in bank.pairs:
                for side, tensor in enumerate(pair):
                    write(bank.backend.ggml, tensor, block[number, side], offset)
                number += 1

    def _let_go(self) -> None:
        banks, self._banks = self._banks, []
        if banks:
            self._moved(self.version)
        for bank in banks:
            bank.close()


class _Bank:
    """A slot's tensors on one device, zero at first."""

    def __init__(self, backend: Backend, layers: range, kv_dim: int, cells: int) -> None:
        self.backend = backend
        self.layers = layers
        ggml = backend.ggml
        count = 2 * len(layers)
        self._tensors = Tensors(backend, count)
        made = [
            ggml.new_tensor_2d(self._tensors.context, Type.F16, kv_dim, cells) for _ in range(count)
        ]
        self.pairs = list(zip(made[::2], made[1::2], strict=True))
        try:
            if backend.is_cpu:
                self._place(made)
            else:
                self._tensors.allocate()
                for tensor in made:
                    write(ggml, tensor, np.zeros((cells, kv_dim), np.float16))
        except BaseException:
            self._tensors.close()
            raise

    def close(self) -> None:
        self._tensors.close()

    def _place(self, made: list[int]) -> None:
        """Put the tensors into memory of ours that the system hands out as it is written to."""
        ggml = self.backend.ggml
        size = -(-ggml.nbytes(made[0]) // _ALIGNMENT) * _ALIGNMENT
        try:
            self._memory = np.zeros(size * len(made) + _ALIGNMENT, np.uint8)
        except MemoryError:
            raise CapacityError(
                f"there is no memory for a KV cache of {size * len(made) >> 20} MiB",
                hint="Wait for another session to end.",
            ) from None
        start = -(-self._memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        buffer = self._tensors.adopt(start, size * len(made))
        for number, tensor in enumerate(made):
            self._tensors.place(tensor, buffer, start + number * size)
