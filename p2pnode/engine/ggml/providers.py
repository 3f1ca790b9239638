"""Where ggml's libraries can lie on this machine; nothing is loaded here."""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from p2pnode.installing import pip_install

DIRECTORY_VARIABLE: Final = "P2PNODE_GGML_DIR"

PACKAGES: Final = ("transcribe-cpp-native", "libggml-python", "xllamacpp")
"""Distributions that hold ggml, the faster first where no GPU is to be used.

The first chooses among builds for this CPU, and multiplies batches of most types 1.5 times as fast
as the second even where both use AVX2; the third takes a fifth longer for one row.
"""

_MOST_FILES: Final = 20_000  # that are looked at in a folder or a distribution
_SUBDIRECTORIES: Final = ("", "lib", "lib64", "bin", "build/bin")
_UNWANTED: Final = frozenset({"", "base", "rpc"})  # rpc computes on other machines, unsealed

# libggml.so, libggml-base.so.0.20.2, libggml-cpu.0.dylib, ggml-cpu-haswell.dll
_FILE_NAME: Final = re.compile(
    r"(?:lib)?ggml(?:-(?P<part>[a-z0-9_-]{1,64}))?(?:\.so|(?:\.\d+)*\.dylib|\.dll)(?:\.\d+)*"
)
_WHOLE: Final = re.compile(r"xllamacpp(?:\.[a-z0-9_-]{1,64})?\.(?:so|pyd)")  # ggml linked in


@dataclass(frozen=True, slots=True)
class Provider:
    """The files of one ggml library.

    Attributes:
        name: For people: a distribution and its version, or the folder.
        libraries: What to load, in this order.
        cpu_modules: CPU back ends to choose from, where the library finds them at run time.
        gpu_modules: Other back ends, likewise.
        is_named: Somebody chose it by ``P2PNODE_GGML_DIR``.
    """

    name: str
    libraries: tuple[Path, ...]
    cpu_modules: tuple[Path, ...] = ()
    gpu_modules: tuple[Path, ...] = ()
    is_named: bool = False


def providers(environment: Mapping[str, str] = os.environ) -> list[Provider]:
    """Return the libraries that are there, the one to try first in front.

    A folder that ``P2PNODE_GGML_DIR`` names comes before what is installed; without libraries it is
    a provider of none, which cannot be loaded.
    """
    found = []
    named = environment.get(DIRECTORY_VARIABLE)
    if named:
        name = f"the folder {named}"
        inside = in_directory(Path(named).absolute(), name) or Provider(name, ())
        found.append(replace(inside, is_named=True))
    for package in PACKAGES:
        installed = _of_package(package)
        if installed is not None and all(installed.libraries != one.libraries for one in found):
            found.append(installed)
    return found


def remedy() -> str:
    """Say what to do where no library can be used."""
    advice = pip_install("libggml-python")
    return f"{advice}, or point {DIRECTORY_VARIABLE} at a folder of llama.cpp's"


def in_directory(directory: Path, name: str) -> Provider | None:
    """Return the library whose files lie in ``directory`` or its ``lib`` or ``bin``, or None."""
    for below in _SUBDIRECTORIES:
        try:
            files = list(islice((directory / below).iterdir(), _MOST_FILES))
        except OSError:
            continue
        provider = _of_files(files, name)
        if provider is not None:
            return provider
    return None


def _of_package(package: str) -> Provider | None:
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    files = [
        Path(str(distribution.locate_file(file)))
        for file in islice(distribution.files or (), _MOST_FILES)
        if _FILE_NAME.fullmatch(file.name) or _WHOLE.fullmatch(file.name)
    ]
    return _of_files(files, f"{package} {distribution.version}")


def _of_files(files: Iterable[Path], name: str) -> Provider | None:
    """Return the library that ``files``, of one folder, make up."""
    parts: dict[str, Path] = {}
    whole = None
    for path in sorted(files, key=lambda path: (-len(path.name), path.name)):
        match = _FILE_NAME.fullmatch(path.name)
        if match is not None and path.is_file():  # a named pipe would be waited for
            parts[match["part"] or ""] = path  # the shortest name of a part comes last
        elif _WHOLE.fullmatch(path.name) and path.is_file():
            whole = path
    if "" in parts and "base" in parts:
        linked = [parts[part] for part in ("base", "cpu", "") if part in parts]
        return Provider(
            name,
            tuple(linked),
            tuple(parts[part] for part in sorted(parts) if _is_cpu(part)),
            tuple(parts[part] for part in sorted(parts) if not _is_cpu(part) | (part in _UNWANTED)),
        )
    return None if whole is None else Provider(name, (whole,))


def _is_cpu(part: str) -> bool:
    return part == "cpu" or part.startswith("cpu-")
