"""One target under atheris: ``python -m tests.fuzz.engine TARGET [libFuzzer's arguments]``."""

import resource
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["p2pnode"]):
    from tests.fuzz.targets import TARGETS

_MORE_ADDRESSES = 512 << 20
"""Bytes of address space beyond what the interpreter has when it starts: one length that is
believed before it is checked fails at once, even where the memory would never be touched."""


def main() -> None:
    name, *arguments = sys.argv[1:]
    target = TARGETS[name]
    for data in target.seeds():
        target.feed(data)  # what is imported late is imported now, before the limit
    limit = _address_space() + _MORE_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("error")  # a peer that can make us warn can fill our log
    atheris.Setup([sys.argv[0], *arguments], target.feed)
    atheris.Fuzz()


def _address_space() -> int:
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    return int(pages) * resource.getpagesize()


if __name__ == "__main__":
    main()
