"""One session's keys and values in one tensor on the device."""

from collections.abc import Callable

import numpy as np
import torch

from p2pnode.engine.base import KvBlock
from p2pnode.engine.kv_slots import Slot
from p2pnode.engine.torch.trouble import device_errors
from p2pnode.errors import CapacityError


class TorchSlot(Slot):
    """Keys and values in the engine's type, [layers, 2, capacity, kv_heads, head_dim].

    A position's numbers lie together: how much room a session has changes no stride that a kernel
    sees, and so no bit of what it computes.

    Attributes:
        is_long: Whether the session takes LongRoPE's divisors for long ones.
    """

    def __init__(
        self,
        layers: range,
        *,
        n_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: str,
        is_long: Callable[[int], bool],
    ) -> None:
        super().__init__(layers)
        self.is_long = False
        self._heads = (n_kv_heads, head_dim)
        self._decide_long = is_long
        self._device = device
        self._kv = torch.empty(self._shape(0), dtype=dtype, device=device)

    def resize(self, capacity: int) -> None:
        if not self.length:
            is_long = self._decide_long(capacity)
        elif (is_long := self.is_long) != self._decide_long(capacity):
            raise CapacityError(
                "the session outgrew the context its rotary embedding was chosen for",
                hint="Reserve the whole session before its first token.",
            )
        with device_errors(self._device, f"hold a session of {capacity} positions"):
            moved = torch.empty(self._shape(capacity), dtype=self._kv.dtype, device=self._device)
            moved[:, :, : self.length] = self._kv[:, :, : self.length]
        self._kv, self.is_long = moved, is_long

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values [1, kv_heads, rows, head_dim] of a layer at a position."""
        end = start + keys.shape[2]
        pair = self._kv[layer - self.layers.start, :, start:end]  # [2, rows, kv_heads, head_dim]
        pair[0] = keys[0].transpose(0, 1)
        pair[1] = values[0].transpose(0, 1)

    def read(self, layer: int, positions: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values, [1, kv_heads, positions, head_dim] each, no copies."""
        pair = self._kv[layer - self.layers.start, :, positions.start : positions.stop]
        keys, values = pair.transpose(1, 2)[:, None]  # [2, 1, kv_heads, positions, head_dim]
        return keys, values

    def export(self, positions: range) -> KvBlock:
        with device_errors(self._device, "copy keys and values out"):
            part = self._kv[:, :, positions.start : positions.stop].flatten(3)
            kind = torch.float32 if part.dtype == torch.bfloat16 else part.dtype  # numpy lacks it
            block: KvBlock = part.to("cpu", kind, copy=True).numpy()
        return block

    def put(self, block: KvBlock) -> None:
        count = block.shape[2]
        with device_errors(self._device, "take keys and values in"):
            new = torch.from_numpy(np.ascontiguousarray(block)).unflatten(3, self._heads)
            self._kv[:, :, self.length : self.length + count] = new.to(self._device, self._kv.dtype)

    def free(self) -> None:
        self._kv = self._kv[:, :, :0].clone()

    def _shape(self, capacity: int) -> tuple[int, ...]:
        return (len(self.layers), 2, capacity, *self._heads)
