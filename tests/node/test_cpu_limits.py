"""A process that uses more than it may ends, with timers and without."""

import signal
import subprocess
import sys

import pytest

from p2pnode.node.text_process import ENCODING, RENDERING

SCRIPT = """
import sys
from p2pnode.node import cpu_limits
from p2pnode.node.cpu_limits import default_signals, spending
from p2pnode.node.text_process import {limit} as limit
cpu_limits.HAS_TIMERS = {timers}
default_signals((limit,))
with spending(limit, 0.05) as rest:
    pass
if not 0 < rest[0] <= 0.07:  # a tick of the system's clock is added
    sys.exit(9)
with spending(limit, 0.05):
    while True:
        sum(range(1000))
"""


@pytest.mark.parametrize("limit", ["RENDERING", "ENCODING"])
@pytest.mark.parametrize("timers", [True, False])
def test_what_overruns_ends_with_a_status_that_tells_which_part(limit: str, timers: bool) -> None:
    script = SCRIPT.format(limit=limit, timers=timers)
    done = subprocess.run([sys.executable, "-c", script], timeout=60, stderr=subprocess.DEVNULL)
    known = {"RENDERING": RENDERING, "ENCODING": ENCODING}[limit]
    assert done.returncode == (known.status if timers else known.fallback)


def test_the_statuses_are_told_apart() -> None:
    assert (RENDERING.status, ENCODING.status) == (-signal.SIGPROF, -signal.SIGVTALRM)
    assert RENDERING.fallback != ENCODING.fallback
