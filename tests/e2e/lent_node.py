"""A node whose owner is whoever a test says: the processes whose numbers stand in a file.

``lent_node FILE up ...`` is ``p2pnode up ...``, but that the owner's load is what those processes
use of an eighth of a core: what else runs on the machine of a test is nobody's, and may leave them
little. The owner counts as gone after two seconds.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil

from p2pnode.interfaces.cli import main, settings
from p2pnode.interfaces.cli.care_options import Care, rest_of
from p2pnode.node import rest_watch
from p2pnode.node.resting import Load, RestConfig


class ChosenLoad:
    """What the processes in a file used of an eighth of a core since the call before."""

    def __init__(self, chosen: Path) -> None:
        self._chosen = chosen
        self._before: dict[int, float] = {}
        self._at = time.monotonic()

    def __call__(self) -> Load:
        now, used = time.monotonic(), dict[int, float]()
        for word in self._chosen.read_text().split():
            try:
                times = psutil.Process(int(word)).cpu_times()
            except psutil.Error:
                continue
            used[int(word)] = times.user + times.system
        spent = sum(cpu - self._before.get(pid, cpu) for pid, cpu in used.items())
        share = 8 * spent / max(now - self._at, 1e-3)
        self._before, self._at = used, now
        return Load(min(1.0, max(0.0, share)))


def quickly(care: Care) -> RestConfig:
    return replace(rest_of(care), below_for=2.0)


if __name__ == "__main__":
    chosen = ChosenLoad(Path(sys.argv.pop(1)))
    setattr(rest_watch, "OwnersLoad", lambda above, gpu: chosen)  # noqa: B010 -- another's name
    setattr(settings, "rest_of", quickly)  # noqa: B010
    main.main()
