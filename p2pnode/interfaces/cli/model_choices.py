"""Which models a node is to have, and which layers of each, as a person writes it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from p2pnode.errors import UsageError

MOST_MODELS: Final = 8
"""As an ad has room for at the very most; a test holds the two together."""

NONE: Final = "none"
_PINNED: Final = re.compile(r"(.*)=([\d:]*)", re.DOTALL)
_RUN: Final = re.compile(r"(\d{1,5}):(\d{1,5})")


class ModelWord(click.types.StringParamType):
    """A model's name, path or id; several of them in a variable stand apart by spaces."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the models of a variable: one, where all of it is the path of one."""
        return [rv] if " " in rv and Path(rv).exists() else rv.split()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model as it was asked for.

    Attributes:
        name: Its name, path or id.
        layers: Those that this node is to hold of it; None for what the swarm needs.
    """

    name: str
    layers: range | None = None


def wanted(models: Sequence[str], layers: str, max_layers: int | None) -> tuple[Wanted, ...]:
    """Read ``--model`` as often as it was given, beside ``--layers`` and ``--max-layers``.

    Raises:
        UsageError: They contradict each other, or are too many.
    """
    found = tuple(dict.fromkeys(map(_wanted, models)))
    run = parse_layers(layers)
    if max_layers is not None and layers != "auto":
        raise UsageError(
            f"--max-layers goes with --layers auto, not with {layers}",
            hint="leave one of the two out",
        )
    if NONE in {one.name for one in found}:
        return _none(found, run)
    if len(found) > MOST_MODELS:
        raise UsageError(f"{len(found)} models are more than the {MOST_MODELS} that a node holds")
    pinned = [one for one in found if one.layers is not None]
    if run is not None and len(found) > 1:
        write = " ".join(f"--model {one.name}={run.start}:{run.stop}" for one in found[:1])
        raise UsageError(
            f"--layers {layers} does not say of which of {len(found)} models",
            hint=f"pin those of each: {write}, or leave --layers out",
        )
    if pinned and layers != "auto":
        raise UsageError(
            f"--layers {layers} and --model {_written(pinned[0])} both say which layers to hold",
            hint="leave one of the two out",
        )
    if max_layers is not None and len(pinned) == len(found):
        raise UsageError(
            "--max-layers has no model whose layers are not pinned", hint="leave it out"
        )
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(f"--model {twice} was given with different layers", hint="give it once")
    return found if run is None else tuple(Wanted(one.name, run) for one in found)


def parse_layers(text: str) -> range | None:
    """Read ``A:B``; None for ``auto`` and ``none``.

    Raises:
        UsageError: It is neither.
    """
    if text in {"auto", NONE}:
        return None
    layers = _run(text)
    if not layers:
        raise UsageError(
            f"not a run of layers: {text!r}",
            hint="--layers auto, or --layers 0:10 for the first ten layers",
        )
    return layers


def _wanted(text: str) -> Wanted:
    match = _PINNED.fullmatch(text)
    if match is None:
        return Wanted(text)
    layers = _run(match[2])
    if not layers or not match[1]:
        raise UsageError(
            f"not a model with a run of layers: {text!r}",
            hint="--model NAME, or --model NAME=0:10 for its first ten layers",
        )
    return Wanted(match[1], layers)


def _run(text: str) -> range:
    match = _RUN.fullmatch(text)
    return range(int(match[1]), int(match[2])) if match else range(0)


def _none(found: Sequence[Wanted], run: range | None) -> tuple[Wanted, ...]:
    if len(found) > 1:
        raise UsageError("--model none goes with no other model", hint="leave one of them out")
    if run is not None or found[0].layers is not None:
        raise UsageError("--model none has no layers to hold", hint="leave one of the two out")
    return ()


def _written(one: Wanted) -> str:
    return one.name if one.layers is None else f"{one.name}={one.layers.start}:{one.layers.stop}"
