"""Why a peer rests: a number in its ad, and the words for it."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final


class RestCause(IntEnum):
    """Why a peer that holds layers computes for nobody else now; a later version may know more."""

    CPU = 1
    """Its owner uses the processor."""
    GPU = 2
    """Its owner uses the GPU."""
    HOURS = 3
    """Its owner chose hours of quiet."""


_WORDS: Final[Mapping[int, str]] = MappingProxyType(
    {
        RestCause.CPU: "its owner uses the CPU",
        RestCause.GPU: "its owner uses the GPU",
        RestCause.HOURS: "it has quiet hours",
    }
)


def rest_words(cause: int) -> str:
    """Return why a peer rests, as others say it; ``cause`` is what its ad says, not 0."""
    return _WORDS.get(cause, "its owner wishes it so")
