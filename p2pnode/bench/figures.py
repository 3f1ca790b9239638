"""Medians and tails of what was measured."""

from collections.abc import Sequence

from p2pnode.quantiles import quantile


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median and the 99th percentile, rounded."""
    return {
        "p50": round(quantile(values, 0.5), digits),
        "p99": round(quantile(values, 0.99), digits),
    }
