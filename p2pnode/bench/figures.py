"""Medians and tails of what was measured."""

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median and the 99th percentile, rounded."""
    return {
        "p50": round(quantile(values, 0.5), digits),
        "p99": round(quantile(values, 0.99), digits),
    }
