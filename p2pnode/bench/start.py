"""What a command costs before it does anything: a whole process, from its start to its end."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any, Final

from p2pnode.bench.figures import spread
from p2pnode.errors import UserError

COMMANDS: Final = (("--help",), ("models", "list"))
"""Commands that people wait for, and that need next to nothing."""

_PATIENCE = 60.0  # seconds for one; a machine that takes so long has other troubles


def measure(*, rounds: int, tell: Callable[[float], None]) -> dict[str, Any]:
    """Run each of :data:`COMMANDS` ``rounds`` times, in turns; seconds a command.

    One round before them brings the files into memory. The commands find no node and an empty
    state directory, and the user's own models.

    Raises:
        UserError: A command failed.
    """
    taken: dict[str, list[float]] = {" ".join(words): [] for words in COMMANDS}
    with TemporaryDirectory(prefix="p2pnode-") as home:
        environment = {**os.environ, "P2PNODE_HOME": home}
        for done in range(rounds + 1):
            for words in COMMANDS:
                seconds = _run(words, environment)
                if done:
                    taken[" ".join(words)].append(seconds)
            tell((done + 1) / (rounds + 1))
    return {
        "rounds": rounds,
        "seconds": {f"p2pnode {words}": spread(times) for words, times in taken.items()},
    }


def _run(words: tuple[str, ...], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "p2pnode", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=_PATIENCE,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise UserError(f"p2pnode {' '.join(words)} failed: {said or done.returncode}")
    return seconds
