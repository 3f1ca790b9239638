"""What the cache notes of each model that was pulled or linked: where it came from, what it is.

A note is written when the files are whole, just before they take their places, so none of them is
ever there unnoted. It is read as something anybody may have written: one that says nothing usable
is none.
"""

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from p2pnode.errors import UserError
from p2pnode.node.catalogue import known_model
from p2pnode.node.sources import checked_name
from p2pnode.replacing import replace_file

FOLDER: Final = ".entries"
PARTS: Final = ".parts"
"""Folder of what has come so far; a pull that was interrupted goes on with it."""

CHECKPOINT: Final = ".checkpoint"
"""Ending of a folder of the cache with a checkpoint, of which a part of the shards may be here."""

MOST_ENTRIES: Final = 10_000
MOST_BYTES: Final = 2**41
"""Of a file of a model, at the most: 2 TB. No more is fetched where nobody announced a length."""

HASHES_FROM: Final = frozenset({"catalogue", "hub", "given", "server", "none"})
_MOST_NOTE: Final = 65_536  # of a note
_MOST_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the cache.

    Attributes:
        name: What it is called here.
        files: Names of its files in the cache; absolute paths where it is linked.
        sizes: Bytes of each.
        sha256: Of each, in hex; empty where it is linked.
        source: What to pull to have it again.
        hash_from: Who said the hash: ``catalogue``, ``hub``, ``given``, ``server`` or ``none``.
        linked: Whether its files are a person's own, outside the cache.
        licence: What the file or the catalogue says; may be empty.
    """

    name: str
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    sha256: tuple[str, ...]
    source: str
    hash_from: str = "none"
    linked: bool = False
    licence: str = ""

    @property
    def is_fetched_checkpoint(self) -> bool:
        """Whether it is a folder of the cache, fetched from a hub."""
        return not self.linked and self.files[0].endswith(CHECKPOINT)

    def paths(self, folder: Path) -> tuple[Path, ...]:
        """Return where its files are, if ``folder`` is where the cache keeps models."""
        return tuple(folder / file for file in self.files)


def read_entries(folder: Path) -> dict[str, Entry]:
    """Return the notes of a cache's folder of models, by lower-case name."""
    found: dict[str, Entry] = {}
    for path in _notes(folder):
        entry = _read(path)
        if entry is not None:
            found[entry.name.casefold()] = entry
    return found


def outdated_files(folder: Path, entry: Entry) -> list[Path]:
    """Return the files of the note that ``entry`` takes the place of, which it has no more."""
    old = read_entries(folder).get(entry.name.casefold())
    if old is None or old.linked:
        return []
    return [folder / file for file in old.files if file not in entry.files]


def write_entry(folder: Path, entry: Entry) -> None:
    """Note a model, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    path = _path(folder, entry.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(asdict(entry)).encode(), 0o644)  # for whoever shares the cache


def forget_entry(folder: Path, name: str) -> None:
    """Remove a note, if there is one: what a person put there has none, and any name.

    Raises:
        OSError: It cannot be removed.
    """
    with suppress(UserError):
        _path(folder, name).unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{checked_name(name).casefold()}.json"


def _notes(folder: Path) -> Iterable[Path]:
    try:
        return sorted((folder / FOLDER).glob("*.json"))[:MOST_ENTRIES]
    except OSError:
        return ()


def _read(path: Path) -> Entry | None:
    try:
        found = path.stat()
        if found.st_size > _MOST_NOTE or not stat.S_ISREG(found.st_mode):  # a pipe would not end
            return None
        body: Any = json.loads(path.read_bytes())
        entry = Entry(
            name=checked_name(_text(body["name"])),
            files=tuple(map(_text, body["files"])),
            sizes=tuple(map(_size, body["sizes"])),
            sha256=tuple(map(_text, body["sha256"])),
            source=_text(body["source"]),
            hash_from=_text(body["hash_from"]),
            linked=body["linked"] is True,
            licence=_text(body["licence"]),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError, UserError):
        return None
    return entry if _is_sound(entry, path) else None


def _text(value: object) -> str:
    """Take a text that may be in a path of this system.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text")
    os.fsencode(value)
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_BYTES:
        raise ValueError("no size")
    return value


def _is_sound(entry: Entry, path: Path) -> bool:
    """Tell whether a note names files that may be its: those of the cache by a bare name."""
    if path.stem != entry.name.casefold() or not 1 <= len(entry.files) <= _MOST_FILES:
        return False
    known = known_model(entry.name)
    if entry.hash_from not in HASHES_FROM or (known is not None and entry.source != known.name):
        return False
    if len(entry.sizes) != len(entry.files) or len(entry.sha256) not in (0, len(entry.files)):
        return False
    if entry.linked:
        return all(Path(file).is_absolute() for file in entry.files)
    return all(
        Path(file).name == file and file.endswith((".gguf", CHECKPOINT)) for file in entry.files
    )
