"""What a layer's attention sees: the session's cache, and the masks of causality and window."""

import torch

from p2pnode.engine.torch.slot import TorchSlot


class StepCache:
    """What a layer of transformers takes for its cache, for one step of one session."""

    __slots__ = ("_layer", "_seen", "_slot", "_start")

    def __init__(self, slot: TorchSlot, layer: int, start: int, seen: range) -> None:
        self._slot = slot
        self._layer = layer
        self._start = start
        self._seen = seen

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values [1, kv_heads, rows, head_dim]; return all that the rows may see."""
        self._slot.write(self._layer, self._start, keys, values)
        return self._slot.read(self._layer, self._seen)


def seen_by(positions: range, window: int) -> range:
    """Return the positions that any of the rows at ``positions`` sees; a window of 0 is none."""
    first = max(0, positions.start - window + 1) if window else 0
    return range(first, positions.stop)


def mask_of(positions: range, window: int, device: str) -> torch.Tensor | None:
    """Return which of :func:`seen_by` each row sees, bool [1, 1, rows, seen].

    None where the kernel knows it unasked: one row that sees all of them, or plain causality from
    the first position on, for which there are faster kernels.
    """
    seen = seen_by(positions, window)
    is_whole = not window or len(seen) <= window
    if len(positions) == 1 or (positions.start == 0 and is_whole):
        return None
    rows = torch.arange(positions.start, positions.stop, device=device)[:, None]  # [rows, 1]
    keys = torch.arange(seen.start, seen.stop, device=device)[None]  # [1, seen]
    mask = keys <= rows  # [rows, seen]
    if window:
        mask &= keys > rows - window
    return mask[None, None]
