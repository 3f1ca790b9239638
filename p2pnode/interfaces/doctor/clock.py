"""The clocks: timers follow the monotonic one, boot epochs begin with the wall's."""

import time
from collections.abc import Iterator, Sequence

from p2pnode.interfaces.doctor.findings import Finding

TOPIC = "clock"

SANE = 1_700_000_000
"""Seconds: November 2023. A wall clock before this was never set."""

JUMP = 0.05
"""Seconds that wall and monotonic time may part within a look: slewing makes 0.0005 a second."""

AHEAD = 60
"""Seconds by which an epoch may be ahead: quick restarts count on by one each."""

_LOOKS, _PAUSE, _TRIES = 5, 0.05, 5


def check_clock(epoch: int | None) -> Iterator[Finding]:
    """Watch both clocks for a quarter of a second; ``epoch`` is that of the latest start."""
    yield report_clock(_offsets(), time.time())
    if epoch is not None and (finding := report_epoch(epoch, time.time())):
        yield finding


def report_clock(offsets: Sequence[float], wall: float) -> Finding:
    """Tell from wall minus monotonic time, seconds, looked at several times in a row."""
    spread = max(offsets) - min(offsets)
    if wall < SANE:
        what = f"the wall clock says {time.strftime('%Y-%m-%d', time.gmtime(wall))}"
        return Finding(TOPIC, "warn", what, "set it; certificates and logs need it too")
    if spread > JUMP:
        what = f"wall time jumped by {spread:.2f} s while we looked"
        return Finding(TOPIC, "warn", what, "let one time service set the clock, gently")
    return Finding(TOPIC, "ok", "wall and monotonic time run together")


def report_epoch(epoch: int, wall: float) -> Finding | None:
    """Say so if an earlier start was at a later time than now."""
    if epoch <= wall + AHEAD:
        return None
    days = (epoch - wall) / 86_400
    what = f"an earlier start of this node lies {days:.1f} days in the future: the clock was wrong"
    return Finding(TOPIC, "warn", what, "check the clock; the node itself counts on from there")


def _offsets() -> list[float]:
    found = []
    for _ in range(_LOOKS):
        found.append(_offset())
        time.sleep(_PAUSE)
    return found


def _offset() -> float:
    """Read both clocks closely together: of several readings the one least interrupted."""
    readings = []
    for _ in range(_TRIES):
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        readings.append((after - before, wall - (before + after) / 2))
    return min(readings)[1]
