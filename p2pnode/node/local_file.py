"""Takes a model file of this machine into the cache: by a note where it is, or as a copy."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from p2pnode.engine.gguf_split import part_name
from p2pnode.engine.model_paths import is_checkpoint
from p2pnode.engine.stored_model import open_stored
from p2pnode.errors import UserError
from p2pnode.node.disk import refuse_full
from p2pnode.node.entries import Entry, outdated_files, read_entries, write_entry
from p2pnode.node.fetching import ROOM_HINT, Progress
from p2pnode.node.model_list import find_file
from p2pnode.node.pull_order import forbid_writing, lock_of, locked, work_folder
from p2pnode.node.sources import cache_name
from p2pnode.node.taken import refuse_taken
from p2pnode.node.whole import sha256_of, whole_model
from p2pnode.text.stored_vocabulary import check_words

_CHUNK = 4 * 2**20


def add_local(
    path: Path,
    folder: Path,
    called: str,
    report: Progress,
    tell: Callable[[str], None],
    *,
    copy: bool,
) -> Path:
    """Check a model and note it under a name; return the file that is used from now on.

    What is a copy stays one: it is copied again where the file changed.

    Raises:
        UserError: It is no model that can be run here, or the name is taken.
        OSError: The cache cannot be written.
    """
    with open_stored(find_file(str(path))) as model:
        model.config()
        check_words(model)
        paths, licence = model.paths, model.licence()
    if is_checkpoint(path):
        return _add_folder(path, folder, called, paths, tell, copy=copy)
    entry = Entry(
        name=called or cache_name(paths[0].name),
        files=tuple(str(one) for one in paths),
        sizes=tuple(one.stat().st_size for one in paths),
        sha256=(),
        source=str(paths[0]),
        linked=True,
        licence=licence[:100],
    )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(folder, entry.name), tell):
        noted = read_entries(folder).get(entry.name.casefold())
        copied = noted if noted is not None and not noted.linked else None
        refuse_taken(folder, entry.name, entry.source, linked=not (copy or copied))
        if copied is not None and _is_of(copied, paths) and whole_model(folder, copied):
            return copied.paths(folder)[0]
        if copy or copied:
            return _copied(entry, paths, folder, report)
        write_entry(folder, entry)
    return paths[0]


def _add_folder(
    path: Path,
    folder: Path,
    called: str,
    paths: tuple[Path, ...],
    tell: Callable[[str], None],
    *,
    copy: bool,
) -> Path:
    """Note a checkpoint where it is; a folder with anything beside it is not copied."""
    if copy:
        raise UserError(
            "--copy is for a file: a checkpoint's folder is linked", hint="leave --copy out"
        )
    size = sum(one.stat().st_size for one in paths)
    name = called or cache_name(path.resolve().name)
    entry = Entry(name, (str(path),), (size,), (), str(path), linked=True)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(folder, name), tell):
        refuse_taken(folder, name, entry.source, linked=True)
        write_entry(folder, entry)
    return path


def _is_of(copied: Entry, paths: tuple[Path, ...]) -> bool:
    """Tell whether a copy is of these files as they are now."""
    return copied.sha256 == tuple(sha256_of(path) for path in paths)


def _copied(entry: Entry, paths: tuple[Path, ...], folder: Path, report: Progress) -> Path:
    """Copy the files of a model, each whole or not at all, and note them."""
    name, total, done = entry.name, sum(entry.sizes), 0
    refuse_full(folder, total, ROOM_HINT)
    files, sizes, hashes = list[str](), list[int](), list[str]()
    with work_folder(folder, name) as work:
        for number, path in enumerate(paths, 1):
            files.append(f"{name}.gguf" if len(paths) == 1 else part_name(name, number, len(paths)))
            begin, digest = done, sha256()
            with path.open("rb") as source, (work / files[-1]).open("wb") as sink:
                while piece := source.read(_CHUNK):
                    sink.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    report(min(1.0, done / max(1, total)))
            sizes.append(done - begin)
            hashes.append(digest.hexdigest())
        copy = replace(
            entry, files=tuple(files), sizes=tuple(sizes), sha256=tuple(hashes), linked=False
        )
        outdated = outdated_files(folder, copy)
        write_entry(folder, copy)
        for file in files:
            forbid_writing(work / file)
            (work / file).replace(folder / file)
        for path in outdated:
            path.unlink(missing_ok=True)
    return copy.paths(folder)[0]
