"""What the file system says of a model's files; apart, so that looking costs no arithmetic."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from p2pnode.engine.model_paths import paths_by_name
from p2pnode.errors import ModelError

_ABSENT: Final = (0, 0, 0, 0)
"""Of a part that is not there, or cannot be looked at: whoever opens the model says so."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes, inode, and when content and entry changed, in nanoseconds; of every part.

    Two contents have one stamp only if they were written within one tick of the file system's
    clock, or the clock was set back: a time of change can be set by hand (``touch -r``), the time
    at which that was done cannot.
    """

    parts: tuple[tuple[int, int, int, int], ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a file, and at the others of its model where its name says that it is a part.

        Raises:
            ModelError: There is none that can be looked at.
        """
        try:
            own = _numbers(path.stat())
        except FileNotFoundError:
            raise ModelError(f"there is no file {path}", hint="Check the path.") from None
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
        return cls(tuple(own if one == path else _look(one) for one in paths_by_name(path)))

    @property
    def numbers(self) -> list[int]:
        """All of them, as JSON has them."""
        return [number for part in self.parts for number in part]


def _look(path: Path) -> tuple[int, int, int, int]:
    try:
        return _numbers(path.stat())
    except OSError:
        return _ABSENT


def _numbers(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
