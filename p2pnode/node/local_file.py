"""Takes a model file of this machine into the cache: by a note where it is, or as a copy."""

import os
import shutil
import tempfile
from pathlib import Path

from p2pnode.engine.gguf_split import part_name
from p2pnode.engine.stored_model import open_stored
from p2pnode.errors import UserError
from p2pnode.node.disk import refuse_full
from p2pnode.node.entries import Entry, read_entries, write_entry
from p2pnode.node.fetching import ROOM_HINT, Progress
from p2pnode.node.model_list import find_file
from p2pnode.node.pull_order import clear_leftovers, forbid_writing
from p2pnode.node.sources import cache_name, refuse_other_formats
from p2pnode.text.stored_vocabulary import check_words

_CHUNK = 4 * 2**20


def add_local(path: Path, folder: Path, called: str, report: Progress, *, copy: bool) -> Path:
    """Check a model and note it under a name; return the file that is used from now on.

    Raises:
        UserError: It is no model that can be run here, or the name is taken.
        OSError: The cache cannot be written.
    """
    refuse_other_formats(path.name)
    with open_stored(find_file(str(path))) as model:
        model.config()
        check_words(model)
        paths, licence = model.paths, model.licence()
    name = called or cache_name(paths[0].name)
    _refuse_taken(folder, name, str(paths[0]))
    sizes = tuple(one.stat().st_size for one in paths)
    files, linked = tuple(str(one) for one in paths), True
    if copy:
        files, linked = _copied(paths, folder, name, report), False
    entry = Entry(
        name=name,
        files=files,
        sizes=sizes,
        sha256=(),
        source=str(paths[0]),
        linked=linked,
        licence=licence[:100],
    )
    write_entry(folder, entry)
    return entry.paths(folder)[0]


def _refuse_taken(folder: Path, name: str, source: str) -> None:
    entry = read_entries(folder).get(name.casefold())
    if entry is not None and entry.source != source:
        raise UserError(
            f"there is another model called {entry.name} already, from {entry.source}",
            hint=f"choose another name with --name, or remove it: p2pnode models rm {entry.name}",
        )
    if entry is None and os.path.lexists(folder / f"{name}.gguf"):
        raise UserError(
            f"{folder} has a file {name}.gguf already", hint="choose another name with --name"
        )


def _copied(paths: tuple[Path, ...], folder: Path, name: str, report: Progress) -> tuple[str, ...]:
    """Copy the files of a model, each whole or not at all."""
    total = sum(path.stat().st_size for path in paths)
    refuse_full(folder, total, ROOM_HINT)
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder, name)
    work = Path(tempfile.mkdtemp(prefix=f".pull-{name}-", dir=folder))
    files, done = [], 0
    try:
        for number, path in enumerate(paths, 1):
            files.append(f"{name}.gguf" if len(paths) == 1 else part_name(name, number, len(paths)))
            with path.open("rb") as source, (work / files[-1]).open("wb") as sink:
                while piece := source.read(_CHUNK):
                    sink.write(piece)
                    done += len(piece)
                    report(min(1.0, done / max(1, total)))
        for file in files:
            forbid_writing(work / file)
            (work / file).replace(folder / file)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tuple(files)
