"""How much of a model there is memory for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """What fits.

    Attributes:
        layers: How many, of any; 0 for none.
        layer_bytes: What the largest takes in memory.
        room: Bytes that are free for weights.
    """

    layers: int
    layer_bytes: int
    room: int

    @property
    def why_none(self) -> str:
        """Why no layer fits, for a person."""
        one, free = megabytes(self.layer_bytes), megabytes(self.room)
        return f"one layer takes {one}, {free} are free for weights"


def megabytes(size: int) -> str:
    """Write a size as people read it."""
    return f"{size / 1e6:.0f} MB" if size < 10**9 else f"{size / 1e9:.1f} GB"
