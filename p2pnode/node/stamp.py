"""What the file system says of a file; apart, so that looking costs a process no arithmetic."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from p2pnode.errors import ModelError


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes, inode, and when content and entry changed, in nanoseconds.

    Two contents have one stamp only if they were written within one tick of the file system's
    clock, or the clock was set back: a time of change can be set by hand (``touch -r``), the time
    at which that was done cannot.
    """

    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a file.

        Raises:
            ModelError: There is none that can be looked at.
        """
        try:
            found = path.stat()
        except FileNotFoundError:
            raise ModelError(f"there is no file {path}", hint="Check the path.") from None
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
        return cls(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def numbers(self) -> list[int]:
        """All of them, as JSON has them."""
        return [self.size, self.inode, self.mtime_ns, self.ctime_ns]
