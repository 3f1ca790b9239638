"""What a folder of the cache has: models that are known, pulled, linked, and whatever else."""

import os
import stat
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.engine.gguf_split import part_paths, whole_name
from p2pnode.engine.model_paths import CONFIG, paths_by_name
from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import KNOWN_MODELS, KnownModel, known_model, meant
from p2pnode.node.entries import CHECKPOINT, PARTS, Entry, read_entries
from p2pnode.node.model_use import is_in_use
from p2pnode.node.places import expanded
from p2pnode.node.pull_order import ELSEWHERE

_MAGIC: Final = b"GGUF"


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model of the cache.

    Attributes:
        name: What it is called.
        path: Its file; the first one of a split model.
        size: Bytes of all its files.
        problem: Why it cannot be used, or empty.
        paths: All its files.
        source: Where it came from; empty where nobody noted it.
        licence: Of the weights, as its file or the catalogue says; may be empty.
        hash_from: Who said its hash: as :class:`~p2pnode.node.entries.Entry` has it.
        linked: Whether it is a person's own file, elsewhere.
    """

    name: str
    path: Path
    size: int
    problem: str
    paths: tuple[Path, ...] = ()
    source: str = ""
    licence: str = ""
    hash_from: str = "none"
    linked: bool = False

    @property
    def in_use(self) -> bool:
        """Whether a node on this machine works with it now."""
        return any(is_in_use(path) for path in self.paths)


def listed(folder: Path) -> list[InstalledModel]:
    """Return the models in a folder, by name; each with what is wrong with it, if anything.

    Raises:
        UserError: The folder cannot be read.
    """
    known = {model.file: model for model in KNOWN_MODELS.values()}
    try:
        paths = sorted(
            path for path in folder.iterdir() if path.suffix == ".gguf" or path.name in known
        )
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise UserError(
            f"cannot read {folder}: {error.strerror or error}", hint=ELSEWHERE
        ) from error
    entries = read_entries(folder)
    found = [_noted(entry, folder) for entry in entries.values()]
    taken = {path for one in found for path in one.paths}
    names = {one.name.casefold() for one in found}
    for path in paths:
        if path not in taken:
            one = _unnoted(path, known.get(path.name), names)
            taken.update(one.paths)
            names.add(one.name.casefold())
            found.append(one)
    return sorted(found, key=lambda one: one.name.casefold())


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A model of which a part has come: a pull goes on with it.

    Attributes:
        name: What it is called.
        size: Bytes of what is here.
        paths: Its files, and the notes beside them.
    """

    name: str
    size: int
    paths: tuple[Path, ...]


def unfinished(folder: Path) -> list[Unfinished]:
    """Return what interrupted pulls left in a folder, by name."""
    known = {model.file: model.name for model in KNOWN_MODELS.values()}
    files: dict[str, list[Path]] = {}
    for path in sorted((folder / PARTS).glob("*.gguf*")):
        name = path.name.removesuffix(".json")
        files.setdefault(known.get(name, whole_name(name)), []).append(path)
    return [
        Unfinished(name, sum(_size(one) for one in paths if one.suffix != ".json"), tuple(paths))
        for name, paths in files.items()
    ]


def find_file(given: str) -> Path:
    """Return the model file of a path that a person gave.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    path = expanded(Path(given or "."))
    problem = problem_of(path)
    if not problem:
        return path
    if os.path.lexists(path):
        hint = "give another file"
        if path.is_dir():
            hint = "give the path of a .gguf file in it, or a checkpoint's folder with config.json"
        raise ModelError(f"{path} is {problem}", hint=hint)
    if given.lower().startswith(("hf:", "http://", "https://")):
        raise ModelError(
            f"{given} is not on this machine under a name",
            hint=f"pull it first, then use its name: p2pnode models pull {given}",
        )
    hint = "check the path" if is_path(given) else f"{meant(given)} Or give a GGUF file's path"
    raise ModelError(f"there is no model and no file called {given!r}", hint=hint)


def is_path(given: str) -> bool:
    """Tell whether a path was meant, not a name."""
    return "/" in given or given.lower().endswith(".gguf")


def problem_of(path: Path) -> str:
    """Say why no model can be read from ``path``, as what it is; empty if nothing speaks against.

    A fuller look is for whoever loads it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return f"a link to {path.readlink()}, which is not there"
        return "not there"
    except OSError as error:
        return f"not to be looked at: {error.strerror or error}"
    if stat.S_ISDIR(mode):
        return "" if (path / CONFIG).is_file() else "a directory"
    if not stat.S_ISREG(mode):
        return "no ordinary file"
    return "" if os.access(path, os.R_OK) else "not readable: permission denied"


# Inside


def _noted(entry: Entry, folder: Path) -> InstalledModel:
    """Look at the files of an entry, each of which must have the size that was noted."""
    paths = entry.paths(folder)
    problem, total = "", 0
    for path, expected in zip(paths, entry.sizes, strict=True):
        wrong, size = _look(path)
        total += size
        if not wrong and size != expected and not path.name.endswith(CHECKPOINT):
            wrong = "changed since it was linked" if entry.linked else "truncated"
        if wrong and not problem:
            what = path if entry.linked or len(paths) > 1 else ""
            problem = f"{what} is {wrong}" if what else wrong
            problem += _cure(entry)
    return InstalledModel(
        entry.name,
        paths[0],
        total,
        problem,
        paths,
        entry.source,
        entry.licence,
        entry.hash_from,
        entry.linked,
    )


def _cure(entry: Entry) -> str:
    return f"; p2pnode models {'rm' if entry.linked else 'pull'} {entry.name}"


def _unnoted(path: Path, model: KnownModel | None, names: Container[str]) -> InstalledModel:
    """Look at a file of which nothing is noted; whatever it is, this does not fail.

    It keeps its ending in its name where that is another model's otherwise.
    """
    paths = tuple(one for one in part_paths(path) if os.path.lexists(one)) or (path,)
    problem, size = _look(path, is_gguf=model is None or not model.is_embedder)
    if model is None:
        size += sum(_look(one)[1] for one in paths if one != path)
        name = whole_name(path.name)
        if name.casefold() in names or known_model(name) is not None:
            name = path.name
        return InstalledModel(name, path, size, problem, paths)
    if problem in ("", _NOT_GGUF) and model.verified and size != model.size:
        problem = f"truncated; pull it again: p2pnode models pull {model.name}"
    return InstalledModel(
        model.name,
        path,
        size,
        problem,
        paths,
        model.name,
        model.licence,
        "catalogue" if model.verified else "none",
    )


_NOT_GGUF: Final = "no GGUF file"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _look(path: Path, *, is_gguf: bool = True) -> tuple[str, int]:
    """Return what speaks against a file, or nothing, and its size."""
    problem, size, begin = problem_of(path), 0, b""
    if not problem and path.is_dir():
        return "", sum(_size(one) for one in paths_by_name(path))
    try:
        size = 0 if problem else path.stat().st_size
        if not problem:
            with path.open("rb") as file:
                begin = file.read(len(_MAGIC))
    except OSError as error:
        problem = f"not readable: {error.strerror or error}"
    return problem or ("" if begin == _MAGIC or not is_gguf else _NOT_GGUF), size
