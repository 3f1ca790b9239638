"""Quantiles of what was measured."""

import math
from collections.abc import Collection


def quantile(values: Collection[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
