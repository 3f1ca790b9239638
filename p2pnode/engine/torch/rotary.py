"""The rotary embedding's cosines and sines, kept for as many positions as were asked for."""

from dataclasses import dataclass
from typing import Final

import torch

_FIRST_POSITIONS: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Turning:
    """How fast the pairs of a head turn.

    Attributes:
        short: Radians a position of each pair, float32 [pairs].
        long: The same for long sessions, where LongRoPE tells the two apart; else ``short``.
        scale: What cosines and sines are multiplied by.
    """

    short: torch.Tensor
    long: torch.Tensor
    scale: float


class Rotary:
    """Tables of one kind of layers, on the device.

    Each number is computed alone and in the same way as transformers does, so that no bit depends
    on how many positions a table has.
    """

    def __init__(self, turning: Turning, dtype: torch.dtype, device: str) -> None:
        self._turning = turning
        self._dtype = dtype
        self._device = device
        self._tables: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}

    def rows(self, positions: range, *, is_long: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines, [1, positions, turned] each."""
        table = self._tables.get(is_long)
        if table is None or table[0].shape[1] < positions.stop:
            table = self._tables[is_long] = self._make(2 * positions.stop, is_long=is_long)
        cut = slice(positions.start, positions.stop)
        return table[0][:, cut], table[1][:, cut]

    def _make(self, count: int, *, is_long: bool) -> tuple[torch.Tensor, torch.Tensor]:
        turning = self._turning
        speeds = (turning.long if is_long else turning.short).to(self._device)  # [pairs]
        at = torch.arange(max(_FIRST_POSITIONS, count), device=self._device)  # [positions]
        angles = at[None, :, None].float() * speeds  # [1, positions, pairs]
        both = torch.cat((angles, angles), dim=-1)  # [1, positions, turned]
        cos, sin = both.cos() * turning.scale, both.sin() * turning.scale
        return cos.to(self._dtype), sin.to(self._dtype)
