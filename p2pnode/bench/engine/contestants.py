"""Which engines there are on this machine to compare."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.placing import choose_device
from p2pnode.engine.ggml.providers import Provider, providers, remedy
from p2pnode.engine.registry import ENGINES
from p2pnode.errors import EngineError, UsageError, UserError
from p2pnode.installing import pip_install

LLAMA_CPP: Final = "llama.cpp"
"""Its own library computes the whole model, with its own graphs."""

_LIBLLAMA: Final = "xllamacpp"  # the package that has it
_ON_CPU: Final = frozenset({"numpy", LLAMA_CPP})  # they are measured there, whatever is named


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
        UserError: A name fits nobody, or none of those chosen has the device.
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
    _refuse_absent(device, {one[0] for one in chosen}, cache)
    return [
        Contestant(engine, library, count, _device(engine, device), unusable)
        for count in dict.fromkeys(threads)
        for engine, library, unusable in chosen
    ]


def _refuse_absent(device: str, engines: set[str], cache: Path | None) -> None:
    """Refuse a device that nobody has: what is measured beside it would be the CPU alone."""
    if device in {"auto", "cpu"}:
        return
    if engines <= _ON_CPU:
        names = " and ".join(sorted(engines))
        raise UsageError(
            f"{names} would be measured on the CPU alone, not on {device}",
            hint="Leave --device out, or name an engine that uses it.",
        )
    problems = []
    for find in _finders(device, engines, cache):
        try:
            find()
        except EngineError as error:
            problems.append(error)
        else:
            return
    raise (
        problems[0]
        if problems
        else EngineError(f"there is no {device} here: no ggml library can be used", hint=remedy())
    )


def _finders(device: str, engines: set[str], cache: Path | None) -> Iterator[Callable[[], object]]:
    """Yield what looks for a device: each raises EngineError where there is none."""
    if "ggml" in engines:
        for one in find_library(cache).candidates:
            if one.is_usable and one.report is not None:
                yield partial(choose_device, device, one.report.devices)
    if "torch" in engines:
        from p2pnode.engine.torch.finding import find_place

        yield partial(find_place, device, "auto")
    if "jax" in engines:
        from p2pnode.engine.jax.runtime import choose_device as choose_for_jax

        yield partial(choose_for_jax, device)


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
    return "auto" if engine in _ON_CPU else device
