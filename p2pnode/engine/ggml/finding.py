"""Which ggml library this machine computes with, and why not with another.

Trying a library takes half a second, so the answers are kept in a file, for as long as nothing
changes that they depend on.
"""

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeAlias

from p2pnode.engine.cpu import cpu_name
from p2pnode.engine.ggml.kept import keep_entries, read_entries
from p2pnode.engine.ggml.probe import Candidate, assess, probe, report_from_json
from p2pnode.engine.ggml.providers import DIRECTORY_VARIABLE, Provider, providers

_FILE_NAME: Final = "ggml.json"
_FORMAT: Final = 2  # raised whenever what is compared changes
_FAILURE_KEPT: Final = 24 * 3600.0  # seconds: it may have been the load of the machine
_DRIVERS: Final = ("/dev/nvidia*", "/dev/dri/*", "/dev/kfd", "/dev/dxg")
_VARIABLES: Final = ("GGML_", "VK_", "CUDA_", "HIP_", "ROCR_", "LD_LIBRARY_PATH")

Probe: TypeAlias = Callable[[Provider], Candidate]


@dataclass(frozen=True, slots=True)
class Search:
    """What there is on this machine.

    Attributes:
        candidates: Every library that was found, the one to prefer first.
    """

    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The one that was named, else the first with a GPU, else the first; None without one.

        Only those that can be used count.
        """
        usable = [candidate for candidate in self.candidates if candidate.is_usable]
        return min(usable, key=_rank, default=None)

    @property
    def passed_over(self) -> str:
        """Why another takes the place of the one that was named; empty where none does."""
        chosen = self.chosen
        for one in self.candidates:
            if one.provider.is_named and not one.is_usable and chosen is not None:
                return (
                    f"does not use what {DIRECTORY_VARIABLE} names ({one.why_not}): "
                    f"{chosen.provider.name} takes its place"
                )
        return ""


def find_library(
    cache: Path | None, *, found: Iterable[Provider] | None = None, try_one: Probe = probe
) -> Search:
    """Try every ggml library on this machine that was not tried before; takes seconds at most.

    Args:
        cache: A directory of our own where answers are kept; None tries each anew.
        found: The libraries; left out, those that :func:`providers` finds.
        try_one: Tries one in a process of its own.
    """
    tried = list(providers() if found is None else found)
    if cache is None:
        return Search(tuple(try_one(provider) for provider in tried))
    kept = read_entries(cache / _FILE_NAME)
    used: dict[str, Any] = {}
    candidates = []
    for provider in tried:
        key = _key(provider)
        candidate = _recall(provider, kept.get(key))
        if candidate is None:
            candidate = try_one(provider)
            if not candidate.is_cut_short:
                used[key] = _entry(candidate)
        else:
            used[key] = kept[key]
        candidates.append(candidate)
    keep_entries(cache / _FILE_NAME, used)
    return Search(tuple(candidates))


def _rank(candidate: Candidate) -> tuple[bool, bool]:
    has_gpu = candidate.report is not None and candidate.report.has_gpu
    return not candidate.provider.is_named, not has_gpu


def _entry(candidate: Candidate) -> dict[str, Any]:
    return {
        "report": candidate.report.to_json() if candidate.report else None,
        "reason": candidate.reason,
        "at": time.time(),
    }


def _recall(provider: Provider, entry: Any) -> Candidate | None:  # noqa: ANN401, from a file
    """Return what was kept; None where it is malformed, or a failure of long ago."""
    try:
        report, reason, at = entry["report"], entry["reason"], entry["at"]
        if not isinstance(reason, str) or not isinstance(at, (int, float)):
            return None
        if report is not None:
            candidate = assess(provider, report_from_json(report))
            if candidate.is_usable:
                return Candidate(provider, candidate.report, reason, is_usable=True)
        else:
            candidate = Candidate(provider, None, reason, is_usable=False)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return candidate if 0 <= time.time() - at < _FAILURE_KEPT else None


def _key(provider: Provider) -> str:
    """Return a hash of everything that an answer depends on."""
    files = (*provider.libraries, *provider.cpu_modules, *provider.gpu_modules)
    drivers = [str(path) for pattern in _DRIVERS for path in Path("/").glob(pattern[1:])]
    variables = {name: os.environ[name] for name in os.environ if name.startswith(_VARIABLES)}
    parts = [
        _FORMAT, _own_version(), sys.platform, platform.machine(), cpu_name(), provider.name,
        [_file(path) for path in files], sorted(drivers), sorted(variables.items()),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _file(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), -1, 0
    return str(path), status.st_size, status.st_mtime_ns


def _own_version() -> str:
    try:
        return version("p2pnode")
    except PackageNotFoundError:
        return ""
