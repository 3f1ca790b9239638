"""Logprobs for people: a line a token, with what might have stood there instead."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SHARE = 10_000  # a probability below one in so many is shown as less than that


def logprob_lines(tokens: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each of ``tokens``, as a node tells of them."""
    for one in tokens:
        others = "  ".join(
            f"{other['text']!r} {_share(other['logprob'])}"
            for other in one["top"]
            if other["token"] != one["token"]
        )
        line = f"{_share(one['logprob']):>8}  {one['text']!r}"
        yield f"{line:<28}  {others}".rstrip()


def _share(logprob: float) -> str:
    share = math.exp(logprob)
    return f"{100 * share:.2f} %" if share * _SHARE >= 1 else "<0.01 %"
