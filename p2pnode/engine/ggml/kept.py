"""Small files of what was found out about this machine: mistrusted, bounded, replaced at once."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from p2pnode.replacing import replace_file

MOST_ENTRIES: Final = 16
_MOST_BYTES: Final = 2**20  # of a file; 16 answers about libraries take 60,000


def read_entries(path: Path) -> dict[str, Any]:
    """Return the entries, oldest first; none where the file is missing or malformed."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        entries = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def keep_entries(path: Path, used: Mapping[str, Any]) -> None:
    """Put the entries that were just used last, and drop the oldest beyond what is kept.

    A file that cannot be written is done without.
    """
    kept = read_entries(path)
    merged = {key: entry for key, entry in kept.items() if key not in used} | dict(used)
    if merged != kept:
        newest = dict(list(merged.items())[-MOST_ENTRIES:])
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(newest).encode())
