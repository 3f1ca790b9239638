"""What the file system says of a file; apart, so that looking costs a process no arithmetic."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from p2pnode.errors import ModelError


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes, time of the last change in nanoseconds, inode.

    Two contents may share a stamp only if somebody sets the clock back.
    """

    size: int
    mtime_ns: int
    inode: int

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
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)

    @property
    def numbers(self) -> list[int]:
        """The three of them, as JSON has them."""
        return [self.size, self.mtime_ns, self.inode]
