"""Whether the cores run compiled or pure, and the loading of the compiled ones.

``make fast`` compiles the cores into one library in the folder ``_compiled``. Before any of them
is imported, :func:`begin` decides for all of them at once: half of each would be two classes of
one name. Where the library is broken, of another Python or older than its sources, the same
sources run pure, and one line says so.
"""

import os
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

VARIABLE = "P2PNODE_PURE"
"""Set to anything but 0, it has the cores run pure; a word other than 1 is the reason."""

HOW_TO_COMPILE = "make fast"

LIBRARY = "p2pnode__mypyc"
"""The module of which all compiled ones come."""

_STARTER = "p2pnode_loader"
_PACKAGE = Path(__file__).parent
_FOLDER = _PACKAGE / "_compiled"


class Cores(NamedTuple):
    """How the cores of this process run.

    Attributes:
        is_compiled: All of those that can be compiled are.
        why: Why they are not, where compiled ones are here or were asked not to be used.
    """

    is_compiled: bool
    why: str = ""

    def in_words(self) -> str:
        if self.is_compiled:
            return "compiled"
        return f"pure: {self.why}" if self.why else "pure"


class _UnusableError(Exception):
    """What is compiled is of no use here; the message says why."""


class _Finder:
    """Finds compiled modules before their sources are found."""

    def __init__(
        self, modules: Iterable[str], library: ModuleType, start: Callable[[object], ModuleType]
    ) -> None:
        self._modules = frozenset(modules)
        self._library = library
        self._start = start

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in self._modules:
            return None
        return ModuleSpec(name, self, origin=self._library.__file__)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Create the module and run it, which mypyc does in one."""
        return self._start(getattr(self._library, _start_of(spec.name)))

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it has been run."""


def begin(folder: Path = _FOLDER) -> Cores:
    """Decide how the cores run in this process, and have them imported so.

    A line is logged if what is compiled cannot be used.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in {"", "0"}:
        return Cores(is_compiled=False, why=f"{VARIABLE}=1 asks for it" if asked == "1" else asked)
    try:
        made = _made_for_this_python(folder)
        if made is None:
            return Cores(is_compiled=False)
        finder = _load(made)
    except _UnusableError as unusable:
        _tell(str(unusable))
        return Cores(is_compiled=False, why=str(unusable))
    sys.meta_path.insert(0, finder)
    return Cores(is_compiled=True)


def _made_for_this_python(folder: Path) -> Path | None:
    """Return where what is compiled for this Python lies; None where nothing is compiled.

    Raises:
        _UnusableError: It is compiled for another Python.
    """
    try:
        names = [name for name in os.listdir(folder) if not name.startswith("building-")]  # noqa: PTH208 -- no paths
    except OSError:
        return None
    for name in names:
        if any(suffix.startswith(f".{name}.") for suffix in EXTENSION_SUFFIXES):
            return folder / name
    if names:
        raise _UnusableError(f"what is compiled is for {min(names)}, not for this Python")
    return None


def _load(folder: Path) -> _Finder:
    """Load the library.

    Raises:
        _UnusableError: It is broken, not there, or older than what it was made of.
    """
    file, size, modules = _contents(folder)
    path = folder / file
    try:
        found = path.stat().st_size
    except OSError:
        raise _UnusableError(f"{file} is not there") from None
    if found != size:  # loading a file that was cut off can end the process
        raise _UnusableError(f"{file} is broken: it has {found} bytes, not {size}")
    try:
        library, starter = _module(LIBRARY, str(path)), _module(_STARTER, str(path))
    except Exception as error:  # whatever it raises as it begins
        raise _UnusableError(f"{file} does not load: {' '.join(str(error).split())}") from None
    if absent := [name for name in modules if not hasattr(library, _start_of(name))]:
        raise _UnusableError(f"{file} lacks {absent[0]}; {HOW_TO_COMPILE} compiles it anew")
    sys.modules[LIBRARY] = library  # where its modules look for it
    return _Finder(modules, library, starter.load)


def _start_of(module: str) -> str:
    """Return the name under which the library has what begins a module."""
    return f"init_{module.replace('.', '___')}"


def _contents(folder: Path) -> tuple[str, int, list[str]]:
    """Return the library's name, its bytes, and its modules.

    A line of the list is a module and what its source was. One that begins with ``watched`` is not
    compiled, but has constants that the compiled ones took over.

    Raises:
        _UnusableError: The source of one has changed since, or the list of them is broken.
    """
    try:
        first, *lines = (folder / "contents").read_text("utf-8").splitlines()
        file, size, count = first.split()
        if len(lines) != int(count):
            raise _UnusableError(f"the list of what is compiled is cut off; {HOW_TO_COMPILE}")
        modules = []
        for line in lines:
            watched, found, rest = line.partition("watched ")
            name, *made_of = (rest if found and not watched else line).split()
            if made_of and _has_changed(name, *map(int, made_of)):
                raise _UnusableError(f"{name} has changed since; {HOW_TO_COMPILE} compiles it anew")
            if not found:
                modules.append(name)
        return file, int(size), modules
    except (OSError, ValueError, TypeError):
        raise _UnusableError("the list of what is compiled is broken") from None


def _has_changed(module: str, size: int, modified: int, checksum: int) -> bool:
    """Tell whether a module's source is another than what was compiled.

    One whose time alone is another, as after a change of branches and back, is read.
    """
    path = f"{_PACKAGE}{module.removeprefix('p2pnode').replace('.', os.sep)}.py"
    try:
        status = os.stat(path)  # noqa: PTH116 -- asked for 190 files at each start
    except FileNotFoundError:
        return True
    if status.st_size != size:
        return True
    if status.st_mtime_ns == modified:
        return False
    from zlib import crc32

    return crc32(Path(path).read_bytes()) != checksum


def _module(name: str, path: str) -> ModuleType:
    """Return one of the two modules that the library itself is."""
    loader = ExtensionFileLoader(name, path)
    module = loader.create_module(ModuleSpec(name, loader, origin=path))
    loader.exec_module(module)
    return module


def _tell(why: str) -> None:
    """Log one line; the processes that this one starts are spared it, and do as it does."""
    import logging

    os.environ[VARIABLE] = why
    logging.getLogger(__name__).warning("p2pnode runs pure, and slower: %s", why)
