"""What a step of an engine should take, by what was measured for one row, a few and many."""

from typing import Final

from p2pnode.errors import LocalProtocolError

PREFILL_ROWS: Final = 64
"""Rows of the batch by which the price of a prompt's position was measured."""


class StepCost:
    """One engine's prices, in microseconds.

    What nobody has measured has the price of a slow machine
    (:class:`p2pnode.scheduler.cost.CostConfig`): steps are then rather too short than too long.

    Attributes:
        fixed_us: Of each step, whatever is in it.
        head_us: Of each token that is drawn.
    """

    def __init__(
        self,
        fixed_us: float = 2_000.0,
        layer_us: float = 3_000.0,
        head_us: float = 0.0,
        *,
        rows4_us: float = 0.0,
        rows8_us: float = 0.0,
        prefill_us: float = 0.0,
    ) -> None:
        """``layer_us`` is of one row in one layer.

        ``rows4_us`` and ``rows8_us`` are of four and eight, ``prefill_us`` of each of 64; 0 where
        that is unknown.

        Raises:
            LocalProtocolError: A price is below nothing.
        """
        if min(fixed_us, layer_us, head_us, rows4_us, rows8_us, prefill_us) < 0:
            raise LocalProtocolError("a price is not below nothing")
        self.fixed_us = fixed_us
        self.head_us = head_us
        known = ((4, rows4_us), (8, rows8_us), (PREFILL_ROWS, prefill_us * PREFILL_ROWS))
        points = [(0, 0.0), (1, layer_us)]
        for rows, price in known:
            if price:  # more rows never take less
                points.append((rows, max(price, points[-1][1])))
        self._points = points

    def rows_us(self, rows: int, layers: int) -> float:
        """Return what ``rows`` take together in so many layers, without the fixed part."""
        return self._layer_us(rows) * layers

    def _layer_us(self, rows: int) -> float:
        """Go straight from each number of rows that was measured to the next."""
        before, price = self._points[0]
        for known, next_price in self._points[1:]:
            if rows <= known:
                return price + (next_price - price) * (rows - before) / (known - before)
            before, price = known, next_price
        return price * rows / before
