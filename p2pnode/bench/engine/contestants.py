"""Which engines there are on this machine to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.providers import Provider, providers
from p2pnode.engine.registry import ENGINES
from p2pnode.errors import UserError
from p2pnode.installing import pip_install

LLAMA_CPP: Final = "llama.cpp"
"""Its own library computes the whole model, with its own graphs."""

_LIBLLAMA: Final = "xllamacpp"  # the package that has it


@dataclass(frozen=True, slots=True)
class Contestant:
    """One engine with one library and so many threads; one row of the table.

    Attributes:
        engine: A name of the registry, or :data:`LLAMA_CPP`.
        provider: The provider of its ggml; empty where it has none.
        threads: Of the CPU.
        device: As :class:`~p2pnode.engine.registry.EngineOptions` has it.
        unusable: Why it cannot take part; empty where it can.
    """

    engine: str
    provider: str
    threads: int
    device: str
    unusable: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.engine, self.provider)))


def choose(
    only: Sequence[str], threads: Sequence[int], device: str, cache: Path | None
) -> list[Contestant]:
    """Return who takes part, each library with each count of threads.

    Args:
        only: Engines, or parts of libraries' names; empty for all.
        threads: Counts.
        device: What computes; numpy and llama.cpp do not hear of it.
        cache: Where is kept what was found out about libraries.

    Raises:
        UserError: A name fits nobody.
    """
    there = _everyone(cache)
    for word in only:
        if not any(_fits(word, one) for one in there):
            names = ", ".join(" ".join(filter(None, one[:2])) for one in there)
            raise UserError(
                f"no engine here is called {word!r}",
                hint=f"Here are: {names}. llama.cpp comes with: {pip_install('xllamacpp')}",
            )
    chosen = [one for one in there if not only or any(_fits(word, one) for word in only)]
    return [
        Contestant(engine, library, count, _device(engine, device), unusable)
        for count in dict.fromkeys(threads)
        for engine, library, unusable in chosen
    ]


def provider_called(name: str) -> Provider:
    """Return the ggml library of a contestant.

    Raises:
        UserError: It is no longer there.
    """
    there = {one.name: one for one in [*providers(), *providers({})]}
    if name not in there:
        raise UserError(f"the library {name} is no longer there")
    return there[name]


def _everyone(cache: Path | None) -> list[tuple[str, str, str]]:
    """Return engine, library and what is wrong with it."""
    found = [("numpy", "", "")]
    found += [
        ("ggml", one.provider.name, "" if one.is_usable else one.reason)
        for one in find_library(cache).candidates
    ]
    found += [
        (name, "", "")
        for name in ENGINES
        if name not in {"auto", "ggml", "numpy"} and find_spec(name) is not None
    ]
    packages = [one.name for one in providers({}) if one.name.startswith(_LIBLLAMA)]
    return [*found, *((LLAMA_CPP, name, "") for name in packages)]


def _fits(word: str, one: tuple[str, str, str]) -> bool:
    engine, library, _ = one
    return word == engine or (len(word) > 2 and engine != LLAMA_CPP and word in library)


def _device(engine: str, device: str) -> str:
    return "auto" if engine in {"numpy", LLAMA_CPP} else device
