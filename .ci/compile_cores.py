"""Compile the cores with mypyc: ``make fast`` in a checkout, the build hook in a wheel.

All modules go into one library, so that either all of them load or none does. Beside it lies a
list of what it was made of, by which p2pnode/compiled.py tells whether it is still true.

    python .ci/compile_cores.py  # into p2pnode/_compiled of this checkout
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from pathlib import Path
from typing import Any

from written_out import write_out

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "p2pnode"
LOADER = Path(__file__).with_name("compiled_loader.c")
KEPT = "build/compiled"  # what the next call need not make again
_BUILDING = "building-"  # p2pnode/compiled.py passes over what begins so
_VERSIONS = 3  # objects of one source that are kept: of a few branches, or Pythons
LIBRARY = f"{PACKAGE}__mypyc"  # as mypyc names it after the group
TAG = EXTENSION_SUFFIXES[0].split(".")[1]  # as p2pnode/compiled.py looks for it
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"


class CannotCompileError(Exception):
    """It cannot be done here; the message says what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile p2pnode's cores with mypyc.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    parser.add_argument("--check", action="store_true", help="only say whether it can be done here")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        if options.check:
            _require_compiler()
            return
        folder = ROOT / PACKAGE / "_compiled"
        print(f"compiling {len(listed_modules())} modules, for one minute to five", flush=True)
        library = compile_into(folder, jobs=options.jobs, is_checkout=True)
    except CannotCompileError as error:
        sys.exit(f"error: {error}")
    size, seconds = library.stat().st_size / 1e6, time.monotonic() - began
    print(f"{library.relative_to(ROOT)}: {size:.1f} MB in {seconds:.0f} s")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for another compilation of this checkout, a wheel's too: both write the same files."""
    kept = ROOT / KEPT
    kept.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_into(folder: Path, *, jobs: int, is_checkout: bool) -> Path:
    """Compile what pyproject.toml lists, into a folder of this Python's own in ``folder``.

    Args:
        folder: That of the package, ``_compiled``.
        jobs: Compilers at once.
        is_checkout: The sources may change: note by what to tell that they did.

    Returns:
        The library.
    """
    _require_compiler()
    modules = listed_modules()
    folder.mkdir(exist_ok=True)
    with _alone():
        if sys.platform != "win32":  # where nobody waited, one of them may be at work
            for left in folder.glob(f"{_BUILDING}*"):  # of one that was killed
                shutil.rmtree(left, ignore_errors=True)
        return _compile_alone(folder, modules, jobs, is_checkout=is_checkout)


def _compile_alone(folder: Path, modules: list[str], jobs: int, *, is_checkout: bool) -> Path:
    with tempfile.TemporaryDirectory(dir=folder, prefix=_BUILDING) as building:
        work = Path(building)
        facts = [_fact(module, is_checkout=is_checkout) for module in modules]
        if is_checkout:
            facts += [f"watched {_fact(one, is_checkout=True)}" for one in _watched(modules)]
        library = _compile(modules, work, jobs)
        made = work / TAG
        made.mkdir()
        target = made / f"{LIBRARY}{SUFFIX}"
        library.replace(target)
        size = target.stat().st_size
        first = f"{target.name} {size} {len(facts)}"
        (made / "contents").write_text("\n".join([first, *facts, ""]))
        if (folder / TAG).exists():  # a folder with files in it cannot be replaced
            (folder / TAG).replace(work / "before")
        made.replace(folder / TAG)
    return folder / TAG / f"{LIBRARY}{SUFFIX}"


def listed_modules() -> list[str]:
    """Return the modules to compile, by name: ``room.*`` is every one of a room but those left."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][PACKAGE]["compiled"]
    left: dict[str, str] = table["left-pure"]
    names: list[str] = []
    for entry in table["modules"]:
        if entry.endswith(".*"):
            room = entry.removesuffix(".*")
            files = sorted((ROOT / room.replace(".", "/")).glob("*.py"))
            names += [f"{room}.{file.stem}" for file in files if file.stem != "__init__"]
        else:
            names.append(entry)
    if unknown := sorted(set(left) - set(names)):
        raise CannotCompileError(f"pyproject.toml leaves out what it does not list: {unknown}")
    return [name for name in names if name not in left]


def source_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def _fact(module: str, *, is_checkout: bool) -> str:
    """Return a line of the list of contents: a module, and how to tell its source by."""
    if not is_checkout:
        return module
    source = source_of(module)
    status = source.stat()
    return f"{module} {status.st_size} {status.st_mtime_ns} {zlib.crc32(source.read_bytes())}"


def _watched(modules: list[str]) -> list[str]:
    """Return the modules left pure that ``modules`` import, also by way of each other.

    mypyc takes their constants over, and trusts what they say of types.
    """
    known, left = set(modules), list(modules)
    while left:
        found = _imported_by(left.pop()) - known
        known |= found
        left += found
    return sorted(known - set(modules))


def _imported_by(module: str) -> set[str]:
    """Return our own modules that one imports, from its head or a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source_of(module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return {one for one in names if one.startswith(f"{PACKAGE}.") and source_of(one).exists()}


def _require_compiler() -> None:
    wanted = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    missing = []
    if os.name != "nt" and shutil.which(wanted) is None:
        missing.append(f"a C compiler ({wanted})")
    if not headers.exists():
        missing.append(f"Python's headers ({headers})")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        missing.append("a Python with a global lock")
    if missing:
        raise CannotCompileError(
            f"compiling needs {' and '.join(missing)}; on Debian: apt install gcc python3-dev. "
            "Without, p2pnode runs pure, and does all the same"
        )


def _compile(modules: list[str], work: Path, jobs: int) -> Path:
    """Return the library, made by mypyc and the C compiler."""
    c_folder, objects_folder = ROOT / KEPT / "c", ROOT / KEPT / "objects"
    objects_folder.mkdir(parents=True, exist_ok=True)
    with _in_folder(_written_sources(modules)):
        extension = _to_c(modules, c_folder)
        compiler = _compiler()
        include = [*extension.include_dirs, sysconfig.get_path("include")]
        headers = b"".join(one.read_bytes() for one in sorted(c_folder.glob("*.h")))
        command = getattr(compiler, "compiler_so", ())  # not of Microsoft's
        chosen = (include, sys.version, command, os.environ.get("ARCHFLAGS"))
        setting = hashlib.sha256(headers + repr((chosen, version("mypy"))).encode())
        objects = {
            source: objects_folder / _kept_as(source, compiler, setting)
            for source in (*extension.sources, str(LOADER))
        }
        missing = [source for source, kept in objects.items() if not kept.exists()]
        missing.sort(key=lambda one: -Path(one).stat().st_size)  # the longest first
        heads = _precompiled(compiler, include, work) if len(missing) > _FEW else {}

        def to_object(source: str) -> None:
            level = _level(source)
            head = heads.get(level, []) if Path(source).stem.startswith(_OURS) else []
            made: list[str] = compiler.compile(
                [source],
                output_dir=str(work / "o"),
                include_dirs=include,
                extra_postargs=[*_flags(compiler, level), *head],
            )
            Path(made[0]).replace(objects[source])

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(to_object, missing))
        library = work / f"{LIBRARY}{SUFFIX}"
        compiler.link_shared_object(
            [str(kept) for kept in objects.values()],
            str(library),
            export_symbols=[f"PyInit_{LIBRARY}", f"PyInit_{PACKAGE}_loader"],
            extra_postargs=_LINK_FLAGS if compiler.compiler_type == "unix" else [],
        )
    _forget_old(objects_folder, objects.values())
    return library


def _kept_as(source: str, compiler: Any, setting: Any) -> str:
    """Return the name of a source's object, by all that it is made of."""
    digest = setting.copy()
    digest.update(repr(_flags(compiler, _level(source))).encode() + Path(source).read_bytes())
    return f"{Path(source).stem}-{digest.hexdigest()[:16]}.o"


_FEW = 20  # sources for which it does not pay to read the headers ahead


def _precompiled(compiler: Any, include: list[str], work: Path) -> dict[str, list[str]]:
    """Return by level of optimisation the flags that take the headers up as read before.

    They are nearly a megabyte: half of the time of a small source. The objects are the same.
    Elsewhere than on Linux compilers have rules of their own for this (Apple's refuses two
    architectures at once), and it is left.
    """
    if sys.platform != "linux":
        return {}
    names = (f"__native_{PACKAGE}.h", f"__native_internal_{PACKAGE}.h")
    heads = {}
    for level in (_FAST, _SMALL):
        head = work / f"head{level}.h"
        head.write_text("".join(f'#include "{name}"\n' for name in names))
        folders = [f"-I{folder}" for folder in include]
        target = ["-x", "c-header", str(head), "-o", f"{head}.gch"]
        command = [*compiler.compiler_so, *folders, *_flags(compiler, level), *target]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            heads[level] = ["-include", str(head)]  # else each source reads them itself
    return heads


def _forget_old(folder: Path, used: Iterable[Path]) -> None:
    """Keep of each source the objects used last: with each change of a class all are made anew."""
    for one in used:
        with contextlib.suppress(FileNotFoundError):
            os.utime(one)
    kept = Counter[str]()
    for one in sorted(folder.glob("*.o"), key=lambda one: -one.stat().st_mtime_ns):
        source, _, _ = one.stem.rpartition("-")
        kept[source] += 1
        if kept[source] > _VERSIONS:
            one.unlink()


def _written_sources(modules: list[str]) -> Path:
    """Return a folder with a copy of the package, with the values of ``modules`` written out."""
    copy = ROOT / KEPT / "sources"
    changed = {source_of(one) for one in modules}
    wanted = set()
    for source in sorted((ROOT / PACKAGE).rglob("*.py")):
        text = source.read_text("utf-8")
        target = copy / source.relative_to(ROOT)
        wanted.add(target)
        if source in changed:
            text = write_out(text)
        if not target.exists() or target.read_text("utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    for stale in set(copy.rglob("*.py")) - wanted:
        stale.unlink()
    return copy


_LINK_FLAGS = ["-s"] if sys.platform != "darwin" else []  # without names: half the size


_HOT = {
    "net.engine_turns", "net.monitor", "net.pump", "net.sleeper", "net.udp", "transport",
    "wire.vframe",
}  # fmt: skip
"""Modules and rooms that each datagram passes: they, mypyc's own sources and the loader are
compiled for speed, all others for size, which makes them a third smaller."""

_COLD = {
    "transport.admission", "transport.config", "transport.establishing", "transport.half_open",
    "transport.handshake", "transport.identity", "transport.newcomers", "transport.noise",
    "transport.path", "transport.peers", "transport.rivals",
}  # fmt: skip
"""Of a hot room: no datagram of an open session passes these, or only for a moment."""

_OURS = f"__native_{PACKAGE}___"
"""What the name of a source of a module of ours begins with; the others are mypyc's own."""

_FAST, _SMALL = "-O2", "-Os"


def _level(source: str) -> str:
    name = Path(source).stem.partition("___")[2].replace("___", ".")
    room = name.partition(".")[0]
    is_hot = not name or name in _HOT or (room in _HOT and name not in _COLD)
    return _FAST if is_hot else _SMALL


def _flags(compiler: Any, level: str) -> list[str]:
    if compiler.compiler_type != "unix":
        return ["/O1"]
    tables = [] if sys.platform == "darwin" else ["-fno-asynchronous-unwind-tables"]
    return [level, "-g0", "-fvisibility=hidden", "-w", *tables]


def _to_c(modules: list[str], c_folder: Path) -> Any:
    """Let mypyc write C; what it has to say is shown only if it fails."""
    try:
        from mypyc.build import mypycify
    except ImportError:
        raise CannotCompileError("compiling needs mypy: pip install -e '.[dev]'") from None
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            library, *_ = mypycify(
                [
                    "--config-file",
                    str(ROOT / "pyproject.toml"),
                    *(str(source_of(one).relative_to(ROOT)) for one in modules),
                ],
                multi_file=True,
                group_name=PACKAGE,
                target_dir=str(c_folder),
            )
    except SystemExit:
        errors = [line for line in said.getvalue().splitlines() if "warning:" not in line]
        raise CannotCompileError("mypyc refuses:\n" + "\n".join(errors)) from None
    finally:
        gc.freeze()  # else Python looks through all that mypy has read at its end, for ten seconds
    return library


def _compiler() -> Any:
    from setuptools._distutils import ccompiler, sysconfig as distutils_sysconfig

    compiler: Any = ccompiler.new_compiler()
    distutils_sysconfig.customize_compiler(compiler)
    return compiler


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder: mypyc names modules after paths from where it stands."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    main()
