"""How much of a model there is memory for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

SPARE: Final = 256 << 20
"""Bytes left for the rest of a machine: a guess."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What fits.

    Attributes:
        layers: How many, of any but the last; 0 for none.
        layer_bytes: What the largest takes in memory.
        room: Bytes that are free for weights.
        with_last: How many of the last ones, with the output matrix beside them; None for as many.
        end_bytes: What the embedding and the output matrix take.
    """

    layers: int
    layer_bytes: int
    room: int
    with_last: int | None = None
    end_bytes: int = 0

    def bytes_of(self, layers: range, n_layers: int) -> int:
        """Return what a run takes of a model with ``n_layers``, at the most."""
        end = self.end_bytes if layers.stop == n_layers and layers else 0
        return len(layers) * self.layer_bytes + end

    def in_room(self, room: int, n_layers: int) -> "Capacity":
        """Return what fits where only ``room`` bytes are free for its weights."""
        if self.layers == n_layers and self.bytes_of(range(n_layers), n_layers) <= room:
            return self
        fitting = capacity_in([self.layer_bytes] * n_layers, self.end_bytes, max(0, room))
        with_last = fitting.layers if fitting.with_last is None else fitting.with_last
        most = self.layers if self.with_last is None else self.with_last
        return replace(
            fitting, layers=min(fitting.layers, self.layers), with_last=min(with_last, most)
        )

    def within(self, layers: range, n_layers: int) -> range:
        """Return what fits of a run of at most :attr:`layers` of ``n_layers``.

        A run with the last layer keeps its end; where that fits with none, it moves away from it.
        """
        most = self.layers if self.with_last is None else self.with_last
        if layers.stop < n_layers or len(layers) <= most:
            return layers
        if most:
            return range(n_layers - most, n_layers)
        return range(max(0, layers.start - 1), n_layers - 1)

    @property
    def why_none(self) -> str:
        """Why no layer fits, for a person."""
        one, free = megabytes(self.layer_bytes), megabytes(self.room)
        return f"one layer takes {one}, {free} are free for weights"


def capacity_in(layer_bytes: Sequence[int], end_bytes: int, room: int) -> Capacity:
    """Return what fits of a model: all of it, or a run that may have any layers but the last.

    Args:
        layer_bytes: What each layer takes.
        end_bytes: What the embedding and the output matrix take: they go with the last layer,
            since of the embedding alone no more is read than a row a token.
        room: Bytes that are free for weights.
    """
    count, most = len(layer_bytes), max(layer_bytes, default=0)
    if sum(layer_bytes) + end_bytes <= room:
        return Capacity(count, most, room, count, end_bytes)
    fits = min(count - 1, room // max(1, most)) if count else 0
    beside = min(count - 1, (room - end_bytes) // max(1, most)) if count else 0
    return Capacity(max(0, fits), most, room, max(0, beside), end_bytes)


def megabytes(size: int) -> str:
    """Write a size as people read it."""
    return f"{size / 1e6:.0f} MB" if size < 10**9 else f"{size / 1e9:.1f} GB"
