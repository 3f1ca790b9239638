"""The interpreter and the packages that p2pnode stands on."""

import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

from p2pnode import CORES
from p2pnode.compiled import HOW_TO_COMPILE, VARIABLE, Cores
from p2pnode.installing import upgrade
from p2pnode.interfaces.doctor.findings import Finding

LEAST_PYTHON = (3, 11)

PACKAGES = (
    "trio",
    "zeroconf",
    "zstandard",
    "xxhash",
    "pynacl",
    "numpy",
    "reedsolo",
    "textual",
    "click",
    "tokenizers",
    "jinja2",
    "gguf",
    "psutil",
    "platformdirs",
    "rich",
    "threadpoolctl",
)
"""Looked at where p2pnode is not installed as a package, and so has no list of its own."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?")


def check_python() -> list[Finding]:
    """Look at the running interpreter and the installed packages."""
    required = required_packages()
    return [
        report_python(sys.version_info[:2], platform.python_implementation()),
        report_packages(required, {name: _version_of(name) for name in required}),
        report_cores(CORES),
    ]


def report_python(version: tuple[int, ...], implementation: str) -> Finding:
    """Say whether p2pnode runs on this interpreter."""
    spelt = f"{implementation} {'.'.join(map(str, version))}"
    if version < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        return Finding("python", "fail", f"{spelt} is too old", f"use Python {least} or newer")
    if implementation != "CPython":
        return Finding("python", "warn", f"{spelt} is not tested", "use CPython")
    return Finding("python", "ok", spelt)


def report_packages(required: Mapping[str, str], found: Mapping[str, str | None]) -> Finding:
    """Compare versions.

    Args:
        required: The least version of each package, empty for any.
        found: The version installed, None where it is missing.
    """
    missing = [name for name in required if found.get(name) is None]
    old = [
        f"{name} {version} (needs {least})"
        for name, least in required.items()
        if (version := found.get(name)) is not None and _parts(version) < _parts(least)
    ]
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", upgrade())
    if old:
        return Finding("packages", "fail", f"too old: {', '.join(old)}", upgrade())
    return Finding("packages", "ok", f"all {len(required)} dependencies are here")


def report_cores(cores: Cores) -> Finding:
    """Say whether the cores run compiled or pure; that they fell back is worth a warning."""
    if cores.is_compiled or not cores.why or cores.why.startswith(VARIABLE):
        return Finding("cores", "ok", cores.in_words())
    return Finding("cores", "warn", cores.in_words(), f"in a checkout: {HOW_TO_COMPILE}")


def required_packages() -> dict[str, str]:
    """Return what the installed package says it needs, each with its least version."""
    try:
        said: Iterable[str] = metadata.requires("p2pnode") or PACKAGES
    except metadata.PackageNotFoundError:
        said = PACKAGES
    needed = (line for line in said if "extra ==" not in line)
    return {
        match[1]: match[2] or "" for line in needed if (match := _REQUIREMENT.match(line.strip()))
    }


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> tuple[int, ...]:
    """Read the numbers a version begins with: ``2.0rc1`` is (2, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
