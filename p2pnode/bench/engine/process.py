"""The parent's side of a contestant's process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Timer
from typing import Any, Final, Self

from p2pnode.bench.engine.contestants import Contestant
from p2pnode.errors import UserError

HANGS: Final = 600.0
"""Seconds after which a process has hung: the exactness of a large model takes minutes."""

_LAST: Final = 300  # characters of what a process said before it died


class Process:
    """One contestant with its model; ended by leaving its ``with``.

    Raises:
        UserError: from each method: it cannot do what it was asked, or died; the process is of no
            more use.
    """

    def __init__(self, contestant: Contestant, *, hangs: float = HANGS) -> None:
        self._hangs = hangs
        self._contestant = contestant
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed at the end
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            # -P: nothing is imported from the directory that this happens to run in.
            [sys.executable, "-P", "-m", "p2pnode.bench.engine.child"],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def load(self, path: Path, ids: Sequence[int], positions: int) -> dict[str, Any]:
        """Load the model; return its numerics, its device and the seconds that it took."""
        return self.ask(
            "load",
            contestant=asdict(self._contestant),
            path=str(path),
            ids=list(ids),
            positions=positions,
        )

    def ask(self, what: str, **asked: Any) -> dict[str, Any]:
        """Put one question; return its answer."""
        sink, source = self._process.stdin, self._process.stdout
        if sink is None or source is None:
            raise UserError("it has no pipes")
        hung = Timer(self._hangs, self._process.kill)
        hung.start()
        try:
            sink.write(json.dumps({"what": what, **asked}).encode() + b"\n")
            sink.flush()
            line = source.readline()
        except OSError:
            line = b""
        finally:
            hung.cancel()
        if not line:
            raise UserError(self._ending())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process; may be called again."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ending(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read()[-_LAST:].decode("utf-8", "replace").strip().splitlines()
        return f"its process ended with status {status}: {lines[-1] if lines else 'silently'}"
