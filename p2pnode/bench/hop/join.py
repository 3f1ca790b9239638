"""From the stamps of some processes to the parts of each hop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from p2pnode.bench.hop.stamps import Moment, Stamp
from p2pnode.values import value

PARTS: Final = (
    "states_coded",
    "frame_built",
    "sealed",
    "peer_awake",
    "received",
    "opened",
    "job_made",
    "job_begun",
    "engine_begun",
)
"""What is reached at the end of each part, in order; the first begins when an engine has ended.

That the kernel has come back to the sender is none of them: on a core that both share it does so
only when the peer has nothing to do any more. Where a message takes several datagrams, ``sealed``
and ``peer_awake`` are the first one's, and ``received`` and ``opened`` the last one's.
"""

LOCAL_PARTS: Final = ("states_coded", "job_made", "job_begun", "engine_begun")
"""The same of a node that holds every layer: nothing leaves it."""


@value
class Hop:
    """From one stage's engine to the next one's.

    Attributes:
        number: The measurement's.
        parts: Seconds of each part by name.
        job: Seconds of the engine's part before it.
        call: Seconds until the kernel came back to the sender; 0 where nothing was sent.
        datagrams: In which it travelled.
        is_by_loop: Whether the peer's loop took the datagram, not the thread that computes.
    """

    number: int
    parts: Mapping[str, float]
    job: float
    call: float
    datagrams: int
    is_by_loop: bool

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return sum(self.parts.values())


@value
class _Stage:
    """A job of one row, and where its stamps stand among its process's.

    Attributes:
        process: Whose.
        position: Of the row.
        layer: The stage's first.
        begun_at: Index of its first stamp.
        coded_at: Index of its last.
        made: Nanoseconds: it was made.
        begun: It begins.
        engine_begun: The engine's part of it begins.
        engine_ended: It ends.
        coded: The job is done.
    """

    process: str
    number: int
    position: int
    layer: int
    begun_at: int
    coded_at: int
    made: int
    begun: int
    engine_begun: int
    engine_ended: int
    coded: int


def hops_of(stamps: Mapping[str, Sequence[Stamp]], *, skip: int) -> tuple[list[Hop], int]:
    """Return the hops of every measurement, and how many could not be joined.

    Args:
        stamps: Of each process, as :meth:`~p2pnode.bench.hop.stamps.Stamps.write` left them.
        skip: Tokens at the start of each measurement that do not count.
    """
    jobs = [job for name, taken in stamps.items() for job in _jobs(name, taken)]
    layers = sorted({job.layer for job in jobs})
    by_place = {(job.number, job.position, job.layer): job for job in jobs}
    first = dict[int, int]()
    for job in jobs:
        first[job.number] = min(job.position, first.get(job.number, job.position))
    found, unmatched = list[Hop](), 0
    for job in jobs:
        following = layers[(layers.index(job.layer) + 1) % len(layers)]
        position = job.position + (following == layers[0])
        after = by_place.get((job.number, position, following))
        if after is None or job.position < first[job.number] + skip:
            continue  # the answer's last token, or one too early
        hop = _joined(job, after, stamps)
        unmatched += hop is None
        if hop is not None:
            found.append(hop)
    return found, unmatched


def _jobs(process: str, stamps: Sequence[Stamp]) -> Iterator[_Stage]:
    """Yield the jobs of one process; one that failed in the middle is left out."""
    begun_at, made, engine = -1, 0, list[int]()
    for at, (moment, now, first, second) in enumerate(stamps):
        if moment == Moment.BEGUN:
            begun_at, engine, begun, position, stage = at, [], now, first, second
        elif moment == Moment.REQUESTED:
            made = now
        elif moment == Moment.ENGINE:
            engine.append(now)
        elif moment == Moment.CODED and begun_at >= 0 and len(engine) == 2:
            number, layer = stage >> 32, stage & 0xFFFFFFFF
            began, ended = engine
            times = (made or begun, begun, began, ended, now)
            yield _Stage(process, number, position, layer, begun_at, at, *times)


def _joined(job: _Stage, after: _Stage, stamps: Mapping[str, Sequence[Stamp]]) -> Hop | None:
    seconds = (job.engine_ended - job.engine_begun) / 1e9
    if job.process == after.process:
        here = (job.engine_ended, job.coded, after.made, after.begun, after.engine_begun)
        return Hop(job.number, _parts(LOCAL_PARTS, here), seconds, 0.0, 0, False)
    sent = _sent(job, stamps[job.process], after.begun)
    if sent is None:
        return None
    built, sealed, left, marks = sent
    arrived = _arrived(after, stamps[after.process], marks, sealed)
    if arrived is None:
        return None
    awake, received, opened, is_by_loop = arrived
    moments = (
        *(job.engine_ended, job.coded, built, sealed),
        *(awake, received, opened, after.made, after.begun, after.engine_begun),
    )
    call = (left - sealed) / 1e9
    return Hop(job.number, _parts(PARTS, moments), seconds, call, len(marks), is_by_loop)


def _parts(names: Sequence[str], moments: Sequence[int]) -> Mapping[str, float]:
    spans = zip(names, moments, moments[1:], strict=False)
    return {name: (after - before) / 1e9 for name, before, after in spans}


def _sent(
    job: _Stage, stamps: Sequence[Stamp], limit: int
) -> tuple[int, int, int, frozenset[int]] | None:
    """Return when the frame was built, sealed and sent, and the marks of its datagrams.

    Nothing else leaves between: the thread holds the node's lock from the frame to its sending.
    """
    built = sealed = sent = 0
    marks = set[int]()
    for at in range(job.coded_at + 1, len(stamps)):
        moment, now, first, _ = stamps[at]
        if moment == Moment.BUILT and not built:
            built = now
        elif moment == Moment.SEALED and built:
            sealed = sealed or now
            marks.add(first)
        elif moment == Moment.SENT and sealed:
            sent = now
        elif sent or now > limit or moment == Moment.BEGUN:
            break
    return (built, sealed, sent, frozenset(marks)) if sent else None


def _arrived(
    job: _Stage, stamps: Sequence[Stamp], marks: frozenset[int], since: int
) -> tuple[int, int, int, bool] | None:
    """Return when the peer was awake, had the last datagram, and had opened it; and who took it."""
    opened = received = asked = awake = 0
    is_by_loop = is_ours = False
    for at in range(job.begun_at - 1, -1, -1):
        moment, now, first, second = stamps[at]
        if now < since:
            break
        if moment == Moment.OPENED and not received:
            opened = now
        elif moment == Moment.RECEIVED:
            is_ours = first in marks
            if is_ours and opened and not received:
                received, is_by_loop = now, not second
        elif moment == Moment.ASKED and is_ours:
            asked = now
        elif moment == Moment.AWAKE:
            awake = now
    if not (opened and received and asked):
        return None
    is_woken = awake and not is_by_loop and awake <= asked
    return (awake if is_woken else asked), received, opened, is_by_loop
