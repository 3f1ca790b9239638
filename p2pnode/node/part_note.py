"""Which file is wanted, and of which file a part is the beginning: the note beside it says so."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from p2pnode.replacing import replace_file

_MOST_NOTE: Final = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        url: Where from.
        name: What to call it in messages.
        size: Its bytes, or None.
        sha256: Its hash in hex; empty where nobody said one.
        said_by: Who said it, in messages.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str = ""
    said_by: str = "the hub"


@dataclass(frozen=True, slots=True)
class PartNote:
    """Of what a part is the beginning.

    Attributes:
        url: Where it came from.
        sha256: The whole file's, as somebody said it; may be empty.
        etag: The server's strong entity tag of it; may be empty.
    """

    url: str
    sha256: str
    etag: str

    @classmethod
    def of(cls, part: Path) -> Self | None:
        """Read the note beside a part; None where there is none, or it says nothing usable."""
        path = note_path(part)
        try:
            if path.stat().st_size > _MOST_NOTE:
                return None
            body = json.loads(path.read_bytes())
            return cls(str(body["url"]), str(body["sha256"]), str(body["etag"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, part: Path) -> None:
        path = note_path(part)
        with suppress(OSError):  # without it the next run begins anew
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(asdict(self)).encode(), 0o644)

    def is_of(self, wanted: Wanted) -> bool:
        """Tell whether a part with this note may be gone on with.

        Where nobody says a hash beforehand, the server's own or a strong entity tag says whether
        the rest will fit.
        """
        if wanted.sha256:
            return self.sha256 == wanted.sha256
        return self.url == wanted.url and bool(self.etag or self.sha256)


def note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
