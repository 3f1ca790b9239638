"""The rounds: everyone in turns, so that a noisy minute hits all alike.

Whoever fails or hangs, at its start or in a round, is a row with the reason: what was measured of
the others stands.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from p2pnode.bench.figures import spread
from p2pnode.bench.machine import describe_machine
from p2pnode.bench.think.contestant import (
    PATIENCE,
    Caller,
    Codec,
    Contestant,
    F16Array,
    make_hidden,
)
from p2pnode.bench.think.frames import encode_think
from p2pnode.bench.think.limit import at_most
from p2pnode.bench.think.placement import on_cores
from p2pnode.bench.think.roster import everyone, reason_to_skip
from p2pnode.bench.think.server import server_process
from p2pnode.errors import UserError
from p2pnode.quantiles import quantile

LEAST = 50
"""Repetitions of everything in a round: twenty rounds make the thousand that a p99 needs."""

ROUND_SECONDS = 0.02
"""A round of the quick ones goes on for about so long, so that their tails are of more than ten
values."""

UNCOUNTED = 5
"""Repetitions at the start of each turn that do not count: the processes were asleep until then,
and none of the contestants is to pay for its turn having come."""

MOST = 1000
"""Repetitions in a round, however quick: each is kept, to find the tail."""

WARM_UP = 200
"""Uncounted round trips before the first turn, or fewer where they take longer than
``WARM_UP_SECONDS``. Path MTU discovery, windows and caches settle in them."""

WARM_UP_SECONDS = 1.0

HANGS = 30.0
"""Seconds after which a contestant that connects and warms up, or takes its turn, has hung. The
slowest turn, that of a new HTTP client a call, takes 3 s at 2.4 GHz."""

DISTRIBUTIONS = {"grpc": "grpcio", "zmq": "pyzmq"}
"""Modules whose package has another name."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Entrant:
    """A contestant that is here, and what was measured of it, in seconds.

    Attributes:
        failure: When and why it failed; it takes no further turns, and has no figures.
        ending: Why closing it failed, which takes none of its figures away.
        near: What is to be closed in this process.
        far: The server.
    """

    contestant: Contestant
    codec: Codec | None = None
    caller: Caller | None = None
    failure: str | None = None
    ending: str | None = None
    message_bytes: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)
    near: ExitStack = field(default_factory=ExitStack)
    far: ExitStack = field(default_factory=ExitStack)


def measure(
    contestants: list[Contestant],
    *,
    rounds: int,
    tell: Callable[[float], None],
    cores: int | None = None,
) -> dict[str, Any]:
    """Let everyone who can send one hidden state there and back, ``rounds`` times in turns.

    Args:
        contestants: Who takes part.
        rounds: Turns of each; every other round goes through them backwards.
        tell: Hears which part is done.
        cores: See :func:`~p2pnode.bench.think.placement.on_cores`.

    Returns:
        ``conditions`` and ``rows``; a row has figures, or ``skipped`` or ``failed`` with the
        reason.

    Raises:
        UserError: This machine does not have so many ``cores``.
    """
    hidden = make_hidden()
    skipped = {one.name: why for one in contestants if (why := reason_to_skip(one)) is not None}
    facts = conditions(hidden, rounds, contestants, cores)
    entrants = [Entrant(one) for one in contestants if one.name not in skipped]
    with ExitStack() as stack:
        far_core = stack.enter_context(on_cores(cores))
        for entrant in entrants:
            stack.callback(_close, entrant)
            _attempt(entrant, "at its start", lambda one: _start(one, hidden, far_core))
        stack.enter_context(_quiet_collector())
        for number in range(rounds):
            gc.collect()  # what one left behind is not swept in another's turn
            for entrant in entrants[:: -1 if number % 2 else 1]:
                if entrant.failure is None:
                    when = f"in round {number + 1} of {rounds}"
                    _attempt(entrant, when, lambda one: _turn(one, hidden))
            tell((number + 1) / rounds)
    rows = {entrant.contestant.name: _row(entrant) for entrant in entrants}
    rows |= {name: {"name": name, "skipped": why} for name, why in skipped.items()}
    _add_ratios(rows)
    return {
        "conditions": facts,
        "rows": [rows[one.name] for one in contestants],
    }


def conditions(
    hidden: F16Array, rounds: int, contestants: list[Contestant], cores: int | None
) -> dict[str, Any]:
    """Say what the figures depend on."""
    packages = {DISTRIBUTIONS.get(name, name) for one in contestants for name in one.needs}
    return {
        "shape": list(hidden.shape),
        "dtype": "f16",
        "frame_bytes": len(encode_think(hidden, 0)),
        "rounds": rounds,
        "kept_on_cores": cores,
        "left_out": len({one.name for one in everyone()} - {one.name for one in contestants}),
        **describe_machine(packages),
    }


def _attempt(entrant: Entrant, when: str, step: Callable[[Entrant], None]) -> None:
    """Do a step of one contestant; whatever it raises is its failure, and nobody else's."""
    try:
        step(entrant)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # trio.Cancelled and the like are no Exception
        entrant.failure = f"{when}: {_in_words(error)}"
        _close(entrant)


def _in_words(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {PATIENCE} s"
    return ": ".join(filter(None, (type(error).__name__, str(error))))


def _start(entrant: Entrant, hidden: F16Array, far_core: int | None) -> None:
    """Start a contestant's server, connect to it, and warm both up."""
    contestant = entrant.contestant
    if contestant.codec is not None:
        with at_most(HANGS):
            entrant.codec = contestant.codec()
    if contestant.link is not None:
        facts = entrant.far.enter_context(server_process(contestant.name, far_core))
        with at_most(HANGS):
            entrant.caller = entrant.near.enter_context(contestant.link.caller(facts))
            _warm_up(entrant.caller, hidden)


def _close(entrant: Entrant) -> None:
    """End both sides; how that goes changes no figure. The server ends even where we hang."""
    try:
        with at_most(PATIENCE):
            entrant.near.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # as above
        entrant.ending = f"at its end: {_in_words(error)}"
    finally:
        entrant.far.close()


def _warm_up(caller: Caller, hidden: F16Array) -> None:
    deadline = time.perf_counter() + WARM_UP_SECONDS
    for _ in range(WARM_UP):
        caller.echo(hidden, 1)
        if time.perf_counter() > deadline:
            break


def _turn(entrant: Entrant, hidden: F16Array) -> None:
    with at_most(HANGS):
        _take_turn(entrant, hidden)


def _take_turn(entrant: Entrant, hidden: F16Array) -> None:
    codec, caller = entrant.codec, entrant.caller
    if codec is not None:
        encode, decode, message = codec.encode, codec.decode, codec.encode(hidden)
        entrant.message_bytes = len(message)
        entrant.encode += _counted(entrant, "encode", lambda n: _each(encode, hidden, n))
        entrant.decode += _counted(entrant, "decode", lambda n: _each(decode, message, n))
        if not np.array_equal(decode(message), hidden):
            raise ValueError("decoding gave other values than were encoded")
    if caller is not None:
        entrant.round_trip += _counted(
            entrant, "round trip", lambda n: _round_trips(caller, hidden, n)
        )


def _round_trips(caller: Caller, hidden: F16Array, count: int) -> list[float]:
    echoes = caller.echo(hidden, count)
    if not np.array_equal(echoes.last, hidden):
        raise ValueError("other values came back than were sent")
    return echoes.seconds


def _each(function: Callable[[T], R], argument: T, count: int) -> list[float]:
    clock = time.perf_counter
    seconds = []
    for _ in range(count):
        began = clock()
        function(argument)
        seconds.append(clock() - began)
    return seconds


def _counted(entrant: Entrant, what: str, repeat: Callable[[int], list[float]]) -> list[float]:
    """Repeat something for ``ROUND_SECONDS``, within ``LEAST`` and ``MOST``; as often each turn."""
    count = entrant.counts.get(what)
    if count is None:
        typical = quantile(repeat(LEAST), 0.5)
        count = entrant.counts[what] = min(max(LEAST, int(ROUND_SECONDS / typical)), MOST)
    return repeat(UNCOUNTED + count)[UNCOUNTED:]


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Set aside what exists already, lest one pays for garbage collection among all of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _row(entrant: Entrant) -> dict[str, Any]:
    name = entrant.contestant.name
    if entrant.failure is not None:
        return {"name": name, "failed": entrant.failure}
    row = {
        "name": name,
        "encode_us": _us(entrant.encode),
        "decode_us": _us(entrant.decode),
        "round_trip_us": _us(entrant.round_trip),
        "repetitions": len(entrant.round_trip or entrant.encode),
        "message_bytes": entrant.message_bytes,
    }
    return row if entrant.ending is None else {**row, "failed": entrant.ending}


def _us(seconds: list[float]) -> dict[str, float] | None:
    return spread([1e6 * one for one in seconds], 2) if seconds else None


def _add_ratios(rows: dict[str, dict[str, Any]]) -> None:
    """Add p2pnode's round trip as a multiple of each other's."""
    ours = rows.get("p2pnode", {}).get("round_trip_us")
    for row in rows.values():
        its = row.get("round_trip_us")
        if ours and its and row["name"] != "p2pnode":
            row["ours_over_its"] = {part: round(ours[part] / its[part], 4) for part in its}
