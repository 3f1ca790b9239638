"""Hops of one, two and three processes, after jobs of several lengths and kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from p2pnode import CORES
from p2pnode.bench.figures import spread
from p2pnode.bench.hop.join import LOCAL_PARTS, PARTS, Hop, hops_of
from p2pnode.bench.hop.knobs import Compute, Setting, Wait
from p2pnode.bench.hop.swarm import measured_swarm
from p2pnode.quantiles import quantile
from p2pnode.transport.parity import CLEAN
from p2pnode.values import value

WARM_UP: Final = CLEAN + 32
"""Packets a link before the first measurement, as many as :mod:`p2pnode.bench.chain` sends."""

SKIPPED: Final = 4
"""Tokens at the start of an answer that do not count: a node learns anew how long a job takes."""

_QUICK: Final = 0.0002  # seconds of a job while links are warmed up

COMPUTES: Final = tuple(one.name.lower() for one in Compute)
WAITS: Final = tuple(one.name.lower().replace("_", "-") for one in Wait)


@value
class Case:
    """One measurement.

    Attributes:
        processes: How many there are.
        compute: What stands for the arithmetic.
        wait: How a stage waits.
        after: Milliseconds of that; None where the engine takes what it takes.
    """

    processes: int
    compute: Compute
    wait: Wait
    after: float | None


def cases(
    processes: Sequence[int],
    computes: Sequence[str],
    waits: Sequence[str],
    after: Sequence[float],
) -> list[Case]:
    """Return the measurements that were asked for, each once.

    One process waits for nobody, so there is one way of waiting; and an engine takes its own time.
    """
    chosen = [Compute(COMPUTES.index(one)) for one in computes]
    ways = [Wait(WAITS.index(one)) for one in waits]
    found = dict[Case, None]()
    for count, compute, wait, time in product(processes, chosen, ways, after):
        is_timed = compute is not Compute.ENGINE
        case = Case(count, compute, wait if count > 1 else Wait.SLEEP, time if is_timed else None)
        found[case] = None
    return list(found)


def measure(
    path: Path,
    chosen: Sequence[Case],
    *,
    tokens: int,
    engine: str,
    threads: int,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    """Answer with ``tokens`` that count in every case; ``tell`` hears which part is done."""
    rows = list[dict[str, Any]]()
    unmatched = 0
    for count in sorted({case.processes for case in chosen}):
        ours = [case for case in chosen if case.processes == count]
        found, lost = _measure(path, count, ours, tokens, engine, threads)
        unmatched += lost
        rows += [_row(case, hops) for case, hops in zip(ours, found, strict=True)]
        tell(len(rows) / len(chosen))
    return {
        "rows": rows,
        "tokens": tokens,
        "engine": engine,
        "threads": threads,
        "unmatched": unmatched,
        "compiled": CORES.is_compiled,
    }


def _measure(
    path: Path, count: int, chosen: Sequence[Case], tokens: int, engine: str, threads: int
) -> tuple[list[list[Hop]], int]:
    with measured_swarm(path, count, engine=engine, threads=threads) as swarm:
        swarm.set(Setting(compute=Compute.SLEEP, forward=_QUICK))
        swarm.warm_up(WARM_UP if count > 1 else SKIPPED)
        for setting in _settings(chosen):
            swarm.set(setting)
            swarm.answer(SKIPPED + tokens + 2)  # the prompt's token, and the last one's hop
            swarm.set(Setting())
        stamps = swarm.stop()
    hops, unmatched = hops_of(stamps, skip=SKIPPED)
    by_number = [[hop for hop in hops if hop.number == at + 1] for at in range(len(chosen))]
    return by_number, unmatched


def _settings(chosen: Sequence[Case]) -> Iterator[Setting]:
    for number, case in enumerate(chosen, 1):
        yield Setting(number, case.compute, case.wait, (case.after or 0.0) / 1e3, 0.0)


def _row(case: Case, hops: Sequence[Hop]) -> dict[str, Any]:
    """Return the figures of one case: microseconds, and the job before in milliseconds."""
    names = LOCAL_PARTS if case.processes == 1 else PARTS
    by_loop = sum(hop.is_by_loop for hop in hops)
    return {
        "processes": case.processes,
        "compute": COMPUTES[case.compute],
        "wait": WAITS[case.wait],
        "after_ms": case.after,
        "hops": len(hops),
        "datagrams": quantile([hop.datagrams for hop in hops], 0.5),
        "job_ms": round(1e3 * quantile([hop.job for hop in hops], 0.5), 3),
        "parts_us": {name: spread([1e6 * hop.parts[name] for hop in hops], 1) for name in names},
        "send_call_us": spread([1e6 * hop.call for hop in hops], 1),
        "hop_us": spread([1e6 * hop.seconds for hop in hops], 1),
        "taken_by_loop": round(by_loop / len(hops), 3) if hops else 0.0,
    }
