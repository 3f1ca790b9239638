"""What takes part: a way to send one hidden state to another process and get it back.

Each contestant is written as its own users would reasonably write it, fastest ordinary way first.
The far side decodes what came to an array and encodes that anew, as the next stage of a chain
would; the near side has its answer once it holds an array again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

F16Array: TypeAlias = npt.NDArray[np.float16]
Facts: TypeAlias = dict[str, Any]
"""What a server tells its callers, as JSON: its port, and whatever they need to trust it."""
Ready: TypeAlias = Callable[[Facts], None]
Foreign: TypeAlias = Any
"""Something of a package that may not be installed, so that no type of it can be named."""

HOST = "127.0.0.1"
PATIENCE = 10
"""Seconds after which an answer is given up. A new HTTP client takes 0.03 s; the rest is for a busy
machine."""

IDLE_SECONDS = 3600
"""Seconds that a connection is kept open while nothing is sent: the others' turns are no reason to
lose it. On a slow machine a round of theirs lasts longer than the 5 s of an HTTP server's default.
"""


@dataclass(frozen=True, slots=True)
class Codec:
    """How an array becomes the bytes of one message, and the array again."""

    encode: Callable[[F16Array], bytes]
    decode: Callable[[bytes], F16Array]


@dataclass(frozen=True, slots=True)
class Echoes:
    """Some round trips, one after another.

    Attributes:
        seconds: How long each took, from array to array.
        last: What came back from the last one.
    """

    seconds: list[float]
    last: F16Array


class Caller(Protocol):
    """The near side, connected."""

    def echo(self, hidden: F16Array, count: int) -> Echoes:
        """Send ``hidden`` and wait for its return, ``count`` times.

        Raises:
            OSError: The far side does not answer. So do what the contestant's own package raises.
        """


@dataclass(frozen=True, slots=True)
class Link:
    """Two processes and what joins them.

    Attributes:
        serve: Calls its argument once it can be reached, then echoes until the process ends.
        caller: Connects to the server that told these facts.
    """

    serve: Callable[[Ready], None]
    caller: Callable[[Facts], AbstractContextManager[Caller]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to send a hidden state.

    Attributes:
        name: What the table calls it.
        codec: Makes a codec as both its sides use it; None where bytes are not looked at.
        link: How messages travel; None where only the codec is compared.
        needs: The modules that must be there, beyond those that p2pnode has anyway.
        short: What a person calls it on the command line; each of its words, split at the
            dashes, stands for all contestants that have it.
    """

    name: str
    codec: Callable[[], Codec] | None
    link: Link | None
    needs: tuple[str, ...] = ()
    short: str = ""


class CallByCall:
    """A caller of a blocking function from array to array."""

    def __init__(self, call: Callable[[F16Array], F16Array]) -> None:
        self._call = call

    def echo(self, hidden: F16Array, count: int) -> Echoes:
        call, clock = self._call, time.perf_counter
        seconds = []
        for _ in range(count):
            began = clock()
            last = call(hidden)
            seconds.append(clock() - began)
        return Echoes(seconds, last)


def raw_codec() -> Codec:
    """The elements and nothing else, for those who agree on everything beforehand."""
    return Codec(lambda hidden: hidden.tobytes(), as_hidden)


def as_hidden(data: bytes | memoryview) -> F16Array:
    """View bytes as one hidden state, [1, d_model]."""
    return np.frombuffer(data, "<f2").reshape(1, -1)


def make_hidden(d_model: int = 2048) -> F16Array:
    """Make a hidden state that looks like one: most values small, a few channels far out.

    [1, d_model], the same each time. A text format pays for digits and a compressor for entropy,
    so zeros would flatter both.
    """
    rng = np.random.default_rng(2048)
    rows = rng.standard_normal((1, d_model)).astype(np.float32)  # [1, d_model]
    rows[:, :: d_model // 4] *= 40  # outlier channels, as in any trained transformer
    return rows.astype(np.float16)
