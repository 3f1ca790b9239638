"""Everyone is timed in turns, so that a noisy minute hits all alike, and attacked afterwards.

Whoever fails is a row with the reason: what was measured of the others stands.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from p2pnode.bench.figures import spread
from p2pnode.bench.http.child import Child, child_of
from p2pnode.bench.http.contestant import Contestant, reason_to_skip
from p2pnode.bench.http.hostile import attack, crowd, is_bounded, left_over, slow_writers
from p2pnode.bench.http.speed import Speed, take_turn
from p2pnode.bench.http.vanish import WAYS, hold_back, vanish
from p2pnode.bench.machine import describe_machine
from p2pnode.bench.think.limit import at_most
from p2pnode.errors import UserError

_HANGS = 60.0
"""Seconds after which a server that is timed or attacked has hung."""

_PACKAGES = ("starlette", "anyio", "h11")


class _Entrant:
    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.child: Child | None = None
        self.speed = Speed()
        self.row: dict[str, Any] = {"name": contestant.name}
        self.stack = ExitStack()

    def attempt(self, when: str, step: Callable[[Child], None]) -> None:
        """Do a step of this one; whatever it raises is its failure, and nobody else's."""
        if self.child is None:
            return
        try:
            with at_most(_HANGS):
                step(self.child)
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self.fail(f"{when}: {kind}{error}")

    def fail(self, why: str) -> None:
        self.row["failed"] = why
        self.child = None
        self.stack.close()


def measure(
    contestants: list[Contestant], *, rounds: int, tell: Callable[[float], None]
) -> dict[str, Any]:
    """Time everyone ``rounds`` times in turns, then vanish and attack.

    Args:
        contestants: Who takes part.
        rounds: Turns of each; every other round goes through them backwards.
        tell: Hears which part is done.

    Returns:
        ``conditions`` and ``rows``; a row has figures, or ``skipped`` or ``failed`` with the
        reason.
    """
    skipped = {one.name: why for one in contestants if (why := reason_to_skip(one)) is not None}
    packages = {one.distribution for one in contestants if one.distribution}
    conditions = {"rounds": rounds, **describe_machine({*packages, *_PACKAGES})}
    entrants = [_Entrant(one) for one in contestants if one.name not in skipped]
    steps = rounds + 2 * len(entrants) + 1
    done = 0

    def step_done() -> None:
        nonlocal done
        done += 1
        tell(done / steps)

    with ExitStack() as stack:
        for entrant in entrants:
            stack.callback(entrant.stack.close)
            _start(entrant)
            step_done()
        for number in range(rounds):
            for entrant in entrants[:: -1 if number % 2 else 1]:
                entrant.attempt("timed", partial(take_turn, speed=entrant.speed))
            step_done()
        for entrant in entrants:
            _add_figures(entrant)
            if not entrant.contestant.is_bare:
                entrant.attempt("vanishing", partial(_vanish, row=entrant.row))
                entrant.attempt("attacked", partial(_attack, row=entrant.row))
            step_done()
        _slowly(entrants)
        step_done()
    rows = {entrant.contestant.name: entrant.row for entrant in entrants}
    rows |= {name: {"name": name, "skipped": why} for name, why in skipped.items()}
    return {"conditions": conditions, "rows": [rows[one.name] for one in contestants]}


def _start(entrant: _Entrant) -> None:
    try:
        entrant.child = entrant.stack.enter_context(child_of(entrant.contestant))
    except UserError as error:
        entrant.fail(f"at its start: {error}")


def _add_figures(entrant: _Entrant) -> None:
    child, speed = entrant.child, entrant.speed
    if child is None:
        return
    entrant.row |= {
        "start_ms": round(1000 * child.start_seconds),
        "memory_mib": round(child.memory() / 2**20, 1),
        "token_us": _us(speed.token),
        "cpu_us": round(1e6 * sum(speed.cpu) / len(speed.cpu), 1),
        "first_byte_us": _us(speed.first_byte),
        "tiny_us": _us(speed.tiny),
        "tiny_a_second": round(len(speed.tiny) / sum(speed.tiny)),
        "tokens": len(speed.token),
    }


def _us(seconds: list[float]) -> dict[str, float]:
    return spread([1e6 * one for one in seconds], 1)


def _vanish(child: Child, row: dict[str, Any]) -> None:
    row["vanishing"] = {way.name: vanish(child, way) for way in WAYS}
    row["held_back"] = hold_back(child)
    row["left_after_vanishing"] = left_over(child)


def _attack(child: Child, row: dict[str, Any]) -> None:
    row["attacks"] = attack(child)
    row["crowd"] = crowd(child)
    row["bounds_heads"] = is_bounded(child)
    row["left_after_attacks"] = left_over(child)
    row["tracebacks_logged"] = child.tracebacks()
    row["memory_after_mib"] = round(child.memory() / 2**20, 1)


def _slowly(entrants: list[_Entrant]) -> None:
    servers = {
        entrant.contestant.name: entrant.child
        for entrant in entrants
        if entrant.child is not None and not entrant.contestant.is_bare
    }
    if not servers:
        return
    cut = slow_writers(servers)
    for entrant in entrants:
        if entrant.contestant.name in cut:
            entrant.row["slow_writer_s"] = cut[entrant.contestant.name]
            entrant.row["survived"] = servers[entrant.contestant.name].is_alive()
